"""A model's provider in a process of its own, with answers that are made beforehand.

Run as a program, it says its port on standard output, and ends when standard input does. It speaks
OpenAI's chat completions: whole answers, and streams of CHUNK_COUNT chunks, each written by itself
as a model's tokens are. Below PACED they come PACE_S apart, and each says when it was sent.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any, Final, cast

import httptools
import msgspec
import uvloop
from msgspec import Struct

CHUNK_COUNT: Final = 50
CHUNK_MARK: Final = b"Tk"
"""Stands once in the text of each chunk; in a whole answer as often."""

SENT_MARK: Final = b"sent_us="
PACED: Final = "/paced"
PACE_S: Final = 0.01
MODEL: Final = "gpt-4o-mini"
PROMPT_TOKENS: Final = 25


class _Body(Struct, frozen=True):
    stream: bool = False


_BODY: Final = msgspec.json.Decoder(_Body)
_USAGE: Final = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": CHUNK_COUNT,
    "total_tokens": PROMPT_TOKENS + CHUNK_COUNT,
}
_COMMON: Final = {"id": "chatcmpl-bench", "created": 1_750_000_000, "model": MODEL}
_NOTHING: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _whole(body: object) -> bytes:
    encoded = json.dumps(body, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(encoded)}"
    return head.encode() + b"\r\n\r\n" + encoded


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(**fields: object) -> bytes:
    event = {**_COMMON, "object": "chat.completion.chunk", **fields}
    return _chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _text(number: int) -> str:
    return f"{CHUNK_MARK.decode()}{number} "


_ANSWER: Final = _whole(
    {
        **_COMMON,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "".join(map(_text, range(CHUNK_COUNT))),
                },
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
)
_BEGIN: Final = _STREAM_HEAD + _delta({"role": "assistant", "content": ""})
_CONTENT: Final = [_delta({"content": _text(number)}) for number in range(CHUNK_COUNT)]
_STOP: Final = _delta({}, "stop")
_END: Final = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_STREAM: Final = (_BEGIN, *_CONTENT, _STOP, _END)
_STREAM_WITH_USAGE: Final = (_BEGIN, *_CONTENT, _STOP, _event(choices=[], usage=_USAGE), _END)


def _stamped(number: int) -> bytes:
    # Python's monotonic clock is one for all processes of a machine.
    sent_us = time.monotonic_ns() // 1000
    return _delta({"content": f"{_text(number)}{SENT_MARK.decode()}{sent_us} "})


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._parts = b"", list[bytes]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # Called by the parser

    def on_message_begin(self) -> None:
        self._url, self._parts = b"", []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            self._transport.write(_NOTHING)  # some ask for the list of models
            return
        body = b"".join(self._parts)
        if not _BODY.decode(body).stream:
            self._transport.write(_ANSWER)
            return
        wants_usage = b'"include_usage":true' in body.replace(b" ", b"")
        parts = _STREAM_WITH_USAGE if wants_usage else _STREAM
        if self._url.startswith(PACED.encode()):
            self._send_paced(parts, 0)
        else:
            self._send(parts, 0)

    def _send(self, parts: tuple[bytes, ...], at: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(parts[at])
            if at + 1 < len(parts):
                self._loop.call_soon(self._send, parts, at + 1)

    def _send_paced(self, parts: tuple[bytes, ...], at: int) -> None:
        if not self._transport.is_closing():
            is_content = 0 < at <= CHUNK_COUNT
            self._transport.write(_stamped(at - 1) if is_content else parts[at])
            if at + 1 < len(parts):
                self._loop.call_later(PACE_S, self._send_paced, parts, at + 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(sys.stdin, lambda: os._exit(0))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
