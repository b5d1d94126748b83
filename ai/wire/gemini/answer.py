"""An answer of generateContent, whole or in pieces → the form.

A piece of a stream has the shape of a whole answer.
https://ai.google.dev/api/generate-content#GenerateContentResponse
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamCutError, UpstreamInvalidError, UpstreamRefusedError
from butterbase.ai.wire.assembly import Assembly
from butterbase.ai.wire.decoding import decode_upstream, raw_text, try_decode
from butterbase.ai.wire.events import (
    Failed,
    Finished,
    ImageAdded,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    Told,
    ToolCallDelta,
    ToolCallStarted,
)
from butterbase.ai.wire.failures import decode_stream_error
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    Finish,
    Image,
    Signature,
    Stamp,
    Usage,
)
from butterbase.ai.wire.openai_chat.answer import missing_id
from butterbase.ai.wire.sse import EventStreamDecoder
from butterbase.ai.wire.usage import GeminiUsage

FINISHES: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "CONTINUATION": "pause",
}
"""Those that are not here are the model's own failures."""


class _FunctionCall(Struct, frozen=True):
    name: str = ""
    id: str | None = None
    args: Raw = NULL


class _Blob(Struct, frozen=True, rename="camel"):
    data: str
    mime_type: str | None = None


class _Part(Struct, frozen=True, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None


class _Content(Struct, frozen=True):
    parts: list[_Part] | None = None


class _Token(Struct, frozen=True, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _Tokens(Struct, frozen=True):
    candidates: list[_Token] | None = None


class _Logprobs(Struct, frozen=True, rename="camel"):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_Tokens] | None = None


class _Candidate(Struct, frozen=True, rename="camel"):
    content: _Content | None = None
    index: int = 0
    finish_reason: str | None = None
    finish_message: str | None = None
    logprobs_result: _Logprobs | None = None


class _Feedback(Struct, frozen=True, rename="camel"):
    block_reason: str | None = None


class _Answer(Struct, frozen=True, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Raw = NULL
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = NULL


_ANSWER = msgspec.json.Decoder(_Answer)
_ANSWERS = msgspec.json.Decoder(list[_Answer])
_USAGE = msgspec.json.Decoder(GeminiUsage | None)


def decode_answer(body: bytes, stamp: Stamp) -> ChatAnswer:
    """Raises UpstreamInvalidError, UpstreamRefusedError."""
    reader, assembly = _Reader(stamp), Assembly()
    # Without `alt=sse` a stream is a list of its pieces.
    is_list = body.lstrip()[:1] == b"["
    wires = decode_upstream(_ANSWERS, body) if is_list else [decode_upstream(_ANSWER, body)]
    for wire in wires:
        for event in reader.read(wire, body):
            assembly.add(event)
    for event in reader.end():
        assembly.add(event)
    if assembly.error is not None:
        raise UpstreamRefusedError(assembly.error)
    if not reader.has_finished:
        raise UpstreamInvalidError("the answer has no candidates")
    return assembly.answer()


class GeminiDecoder:
    is_over = False
    """Nothing but the end of the bytes tells it."""

    def __init__(self, stamp: Stamp) -> None:
        self._events = EventStreamDecoder()
        self._reader = _Reader(stamp)

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Raises UpstreamInvalidError, EventTooLongError."""
        return [e for raw in self._events.feed(chunk) for e in self._read(raw.data)]

    def close(self) -> list[StreamEvent]:
        """Raises UpstreamCutError."""
        events: list[StreamEvent] = []
        rest = self._events.close()
        if rest is not None and rest.data and try_decode(_ANSWER, rest.data) is not None:
            events = list(self._read(rest.data))
        if not self._reader.has_finished:
            raise UpstreamCutError
        return [*events, *self._reader.end()]

    def _read(self, data: bytes | None) -> Iterator[StreamEvent]:
        if data:
            yield from self._reader.read(decode_upstream(_ANSWER, data), data)


class _Reader:
    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._has_started = self._has_failed = False
        self._call_counts: dict[int, int] = {}
        self._finishes: dict[int, str] = {}
        self._filled: set[int] = set()
        """Candidates that said something."""
        self._usage: Usage | None = None

    @property
    def has_finished(self) -> bool:
        return bool(self._finishes) or self._has_failed

    def read(self, wire: _Answer, data: bytes) -> Iterator[StreamEvent]:
        if self._has_failed:
            return
        if wire.error != NULL:
            self._has_failed = True
            yield Failed(decode_stream_error(data))
            return
        if not self._has_started:
            self._has_started = True
            model, at_s = wire.model_version or self._stamp.model, self._stamp.at_s
            yield Started(wire.response_id or self._stamp.id, model, at_s)
        feedback = wire.prompt_feedback
        if feedback is not None and feedback.block_reason:
            self._finishes[0] = "SAFETY"
        for candidate in wire.candidates or ():
            yield from self._read_candidate(candidate)
        usage = try_decode(_USAGE, wire.usage_metadata)
        told = usage and usage.read()
        if told is not None and told != self._usage:
            self._usage = told
            yield Told(told)

    def end(self) -> Iterator[StreamEvent]:
        """Why each candidate ended: only the last piece knows, as some name a reason in each."""
        if self._has_failed:
            return
        for index, reason in sorted(self._finishes.items()):
            finish = FINISHES.get(reason)
            if finish is None and index not in self._filled:
                # An empty answer that calls itself whole would be believed.
                raise UpstreamInvalidError(f"the model ended without an answer: {reason}")
            has_calls = index in self._call_counts and finish in {None, "stop"}
            yield Finished("tool_calls" if has_calls else finish or "stop", index)

    def _read_candidate(self, candidate: _Candidate) -> Iterator[StreamEvent]:
        index, logprobs = candidate.index, _logprobs(candidate.logprobs_result)
        parts = (candidate.content.parts if candidate.content else None) or []
        for part in parts:
            for event in self._read_part(part, index):
                self._filled.add(index)
                yield event
        if logprobs != NULL:
            yield TextDelta("", index, logprobs=logprobs)
        if candidate.finish_reason:
            self._finishes[index] = candidate.finish_reason

    def _read_part(self, part: _Part, index: int) -> Iterator[StreamEvent]:
        signature = Signature(part.thought_signature, "gemini") if part.thought_signature else None
        if part.function_call is not None:
            yield from self._read_call(part.function_call, index, signature)
        elif part.inline_data is not None and not part.thought:
            blob = part.inline_data
            image = Image(data=blob.data, media_type=blob.mime_type or "image/png")
            yield ImageAdded(image, index)
        elif part.text or signature is not None:
            if part.thought:
                yield ReasoningDelta(part.text or "", index, signature)
            else:
                yield TextDelta(part.text or "", index, signature)

    def _read_call(
        self, call: _FunctionCall, index: int, signature: Signature | None
    ) -> Iterator[StreamEvent]:
        number = self._call_counts.get(index, 0)
        self._call_counts[index] = number + 1
        call_id = call.id or missing_id(self._stamp, index, number)
        yield ToolCallStarted(number, call_id, call.name, index, signature=signature)
        arguments = "{}" if call.args == NULL else raw_text(call.args)
        yield ToolCallDelta(number, arguments, index)


def _logprobs(wire: _Logprobs | None) -> Raw:
    """In the shape of OpenAI's chat completions."""
    if wire is None or not wire.chosen_candidates:
        return NULL
    tops = wire.top_candidates or []
    content = []
    for place, chosen in enumerate(wire.chosen_candidates):
        top = tops[place].candidates or () if place < len(tops) else ()
        content.append({**_token(chosen), "top_logprobs": [_token(token) for token in top]})
    return Raw(msgspec.json.encode({"content": content, "refusal": None}))


def _token(token: _Token) -> dict[str, object]:
    return {
        "token": token.token,
        "logprob": token.log_probability,
        "bytes": list(token.token.encode()),
    }
