"""A streamed chat completion → the events of the form.

Servers that speak OpenAI's form leave things out or do them twice: the role, the ids and indexes
of calls, `[DONE]`, the usage, or they tell the usage beside choices or with every chunk.
https://platform.openai.com/docs/api-reference/chat/streaming
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamCutError
from butterbase.ai.wire.decoding import decode_upstream, json_object, try_decode
from butterbase.ai.wire.events import (
    CitationAdded,
    Failed,
    Finished,
    ImageAdded,
    ReasoningDelta,
    RefusalDelta,
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
    Stamp,
)
from butterbase.ai.wire.openai_chat.answer import (
    WireAnnotation,
    WireCustom,
    WireFunction,
    WireImage,
    missing_id,
    read_finish,
)
from butterbase.ai.wire.openai_chat.reasoning import (
    ExtraContent,
    ReasoningDetail,
    google_signature,
    read_reasoning,
)
from butterbase.ai.wire.sse import EventStreamDecoder
from butterbase.ai.wire.usage import ChatUsage


class _ToolCall(Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None
    custom: WireCustom | None = None
    extra_content: ExtraContent | None = None


class _Delta(Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    tool_calls: list[_ToolCall] | None = None
    annotations: list[WireAnnotation] | None = None
    images: list[WireImage] | None = None
    extra_content: ExtraContent | None = None


_NO_DELTA = _Delta()


class _Choice(Struct, frozen=True):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: Raw = NULL
    error: Raw = NULL
    """OpenRouter's, of the provider behind it."""


class _Chunk(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    created: int | float | None = None
    choices: list[_Choice] | None = None
    usage: Raw = NULL
    error: Raw = NULL
    service_tier: str | None = None
    system_fingerprint: str | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_USAGE = msgspec.json.Decoder(ChatUsage | None)


class ChatDecoder:
    def __init__(self, stamp: Stamp) -> None:
        self._events = EventStreamDecoder()
        self._stamp = stamp
        self._has_started = False
        self.is_over = False
        """[DONE] or an error came; what follows is of no answer."""
        self._calls: dict[int, _Calls] = {}
        self._finished: set[int] = set()

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Raises UpstreamInvalidError, EventTooLongError."""
        return [e for raw in self._events.feed(chunk) for e in self._read(raw.data)]

    def close(self) -> list[StreamEvent]:
        """Raises UpstreamCutError."""
        events: list[StreamEvent] = []
        rest = self._events.close()
        # Some servers leave out the last blank line; half an event is no event.
        if rest is not None and rest.data and _is_whole(rest.data):
            events = list(self._read(rest.data))
        # Some end without [DONE]; a reason to finish and a clean end say as much.
        if not self.is_over and not self._finished:
            raise UpstreamCutError
        return events

    def _read(self, data: bytes | None) -> Iterator[StreamEvent]:
        if not data or self.is_over:
            return
        if data.strip() == b"[DONE]":
            self.is_over = True
            return
        chunk = decode_upstream(_CHUNK, data)
        failure = data if chunk.error != NULL else _choice_error(chunk)
        if failure is not None:
            self.is_over = True
            yield Failed(decode_stream_error(failure))
            return
        # Azure begins with a chunk of filter results, which names neither id nor model.
        if not self._has_started and (chunk.choices or chunk.id):
            self._has_started = True
            yield Started(
                chunk.id or self._stamp.id,
                chunk.model or self._stamp.model,
                int(chunk.created or self._stamp.at_s),
                chunk.service_tier,
                chunk.system_fingerprint,
            )
        for choice in chunk.choices or ():
            yield from self._read_choice(choice)
        usage = try_decode(_USAGE, chunk.usage)
        if usage is not None:
            yield Told(usage.read())

    def _read_choice(self, choice: _Choice) -> Iterator[StreamEvent]:
        delta, index = choice.delta or _NO_DELTA, choice.index
        thoughts = read_reasoning(
            details=delta.reasoning_details,
            blocks=None,
            text=delta.reasoning_content or delta.reasoning,
        )
        for thought in thoughts:
            yield ReasoningDelta(thought.text, index, thought.signature, thought.is_redacted)
        signature = google_signature(delta.extra_content)
        if delta.content or signature is not None or choice.logprobs != NULL:
            yield TextDelta(delta.content or "", index, signature, choice.logprobs)
        yield from _extras(delta, index)
        if delta.refusal:
            yield RefusalDelta(delta.refusal, index)
        if delta.tool_calls:
            calls = self._calls.setdefault(index, _Calls(index, self._stamp))
            for call in delta.tool_calls:
                yield from calls.read(call)
        has_calls = index in self._calls
        finish = read_finish(choice.finish_reason, has_calls=has_calls)
        if finish is not None and index not in self._finished:
            self._finished.add(index)
            stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
            yield Finished(finish, index, stop)


def _choice_error(chunk: _Chunk) -> Raw | None:
    return next((choice.error for choice in chunk.choices or () if choice.error != NULL), None)


def _extras(delta: _Delta, index: int) -> Iterator[StreamEvent]:
    for wired in delta.images or ():
        for image in wired.read():
            yield ImageAdded(image, index)
    for annotation in delta.annotations or ():
        for citation in annotation.read():
            yield CitationAdded(citation, index)


class _Calls:
    """The calls of one choice, by their place and not by the index that a server gives them.

    Some give each call that they send whole the index 0, and some none.
    """

    def __init__(self, choice: int, stamp: Stamp) -> None:
        self._choice = choice
        self._stamp = stamp
        self._count = 0
        self._ids: list[str | None] = []
        self._texts: list[str] = []
        self._places: dict[int, int] = {}
        """By a server's index, where its latest call is."""

    def read(self, call: _ToolCall) -> Iterator[StreamEvent]:
        name, text = _said(call)
        place = self._place(call, has_name=bool(name))
        if place is None:
            place = self._count
            self._count += 1
            self._ids.append(call.id)
            self._texts.append("")
            self._places[place if call.index is None else call.index] = place
            yield ToolCallStarted(
                place,
                call.id or missing_id(self._stamp, self._choice, place),
                name,
                self._choice,
                call.custom is not None,
                google_signature(call.extra_content),
            )
        if text:
            self._texts[place] += text
            yield ToolCallDelta(place, text, self._choice)

    def _place(self, call: _ToolCall, *, has_name: bool) -> int | None:
        """Where the call is that this goes on with; None for one that begins."""
        last = self._count - 1
        place = last if call.index is None else self._places.get(call.index, -1)
        if place < 0 or not has_name:
            return place if place >= 0 else None
        if call.id is not None:
            # Some repeat id and name with each piece.
            return self._ids.index(call.id) if call.id in self._ids else None
        # A name again and no id: another call, if this one's arguments are whole.
        is_whole = bool(self._texts[place]) and json_object(self._texts[place]) is not None
        return None if call.index is None or is_whole else place


def _said(call: _ToolCall) -> tuple[str, str]:
    """Name and arguments."""
    if call.custom is not None:
        return call.custom.name or "", call.custom.input or ""
    function = call.function or WireFunction()
    return function.name or "", function.read_arguments()


def _is_whole(data: bytes) -> bool:
    return data.strip() == b"[DONE]" or try_decode(_CHUNK, data) is not None
