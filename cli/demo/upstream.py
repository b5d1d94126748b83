"""An OpenAI-compatible provider on this machine, for when there is no other. It is no model.

It answers with the sentence, of those it is given, that shares most words with the question. A
token is a word or a punctuation mark; what it counts is what it read and wrote.

https://platform.openai.com/docs/api-reference/chat
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "extractive"
NO_ANSWER = "The passages do not tell."

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_WORD_LENGTH_MIN = 4
"""Shorter words are in every sentence."""


def count_tokens(text: str) -> int:
    return len(_TOKEN.findall(text))


def answer(question: str, context: str) -> str:
    """The sentence of the context with most of the question's words, the first among equals."""
    wanted = _words(question)
    sentences = [" ".join(part.split()) for part in _SENTENCE_END.split(context)]
    best = max(sentences, key=lambda sentence: len(wanted & _words(sentence)), default="")
    return best if wanted & _words(best) else NO_ANSWER


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) >= _WORD_LENGTH_MIN}


@contextmanager
def running_upstream() -> Iterator[str]:
    """Serve on a free loopback port; yields the base URL, up to /v1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._refuse(404, f"there is nothing at {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/chat/completions":
            self._refuse(404, f"there is nothing at {self.path}")
            return
        try:
            request = json.loads(body)
            messages = [(m["role"], str(m["content"])) for m in request["messages"]]
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(400, f"the body cannot be read: {error!r}")
            return
        question = next((text for role, text in reversed(messages) if role == "user"), "")
        context = "\n\n".join(text for role, text in messages if role == "system")
        text = answer(question, context)
        read, written = sum(count_tokens(text) for _, text in messages), count_tokens(text)
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
        if request.get("stream"):
            self._stream(text, usage)
        else:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._json(200, _completion("chat.completion", [choice]) | {"usage": usage})

    def _stream(self, text: str, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        # A piece is a token with the space before it.
        pieces = re.findall(rf"\s*(?:{_TOKEN.pattern})", text)
        choices: list[list[dict[str, Any]]] = [
            [{"index": 0, "delta": {"content": piece}, "finish_reason": None}] for piece in pieces
        ]
        choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        for choice in choices:
            self._event(json.dumps(_completion("chat.completion.chunk", choice)))
        self._event(json.dumps(_completion("chat.completion.chunk", []) | {"usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))

    def _refuse(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Nothing: the demo prints its own lines."""


def _completion(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
        "choices": choices,
    }
