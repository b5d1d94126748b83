"""A streamed response of OpenAI's Responses API → the events of the form.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamCutError
from butterbase.ai.wire.decoding import decode_upstream, try_decode
from butterbase.ai.wire.events import (
    CitationAdded,
    Failed,
    Finished,
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
    Reasoning,
    Stamp,
    ToolCall,
)
from butterbase.ai.wire.openai_responses.answer import WireResponse
from butterbase.ai.wire.openai_responses.items import Annotation, Item, read_output
from butterbase.ai.wire.sse import EventStreamDecoder


class _Event(Struct, frozen=True):
    type: str = ""
    delta: str = ""
    output_index: int = 0
    summary_index: int = 0
    content_index: int = 0
    item: Item | None = None
    annotation: Annotation | None = None
    response: Raw = NULL
    logprobs: Raw = NULL


_EVENT = msgspec.json.Decoder(_Event)
_RESPONSE = msgspec.json.Decoder(WireResponse)
_BETWEEN = "\n\n"
"""Between the parts of a summary."""


class ResponsesDecoder:
    def __init__(self, stamp: Stamp) -> None:
        self._events = EventStreamDecoder()
        self._stamp = stamp
        self._has_started = self.is_over = False
        self._calls: dict[int, int] = {}
        """By the place of an item, which call it is."""
        self._silent: set[int] = set()
        """Calls that told no arguments yet."""

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Raises UpstreamInvalidError, EventTooLongError."""
        return [e for raw in self._events.feed(chunk) for e in self._read(raw.data)]

    def close(self) -> list[StreamEvent]:
        """Raises UpstreamCutError."""
        events: list[StreamEvent] = []
        rest = self._events.close()
        if rest is not None and rest.data and try_decode(_EVENT, rest.data) is not None:
            events = list(self._read(rest.data))
        if not self.is_over:
            raise UpstreamCutError
        return events

    def _read(self, data: bytes | None) -> Iterator[StreamEvent]:
        if not data or self.is_over or data.strip() == b"[DONE]":
            return
        event = decode_upstream(_EVENT, data)
        match event.type:
            case "response.failed" | "error":
                self.is_over = True
                failed = event.response if event.response != NULL else data
                yield Failed(decode_stream_error(failed))
            case "response.created" | "response.in_progress" | "response.queued":
                yield from self._start(event.response)
            case "response.completed" | "response.incomplete":
                yield from self._end(event.response)
            case "response.output_item.added" | "response.output_item.done":
                yield from self._read_item(event)
            case _:
                yield from self._add(event)

    def _start(self, raw: Raw) -> Iterator[StreamEvent]:
        if self._has_started:
            return
        self._has_started = True
        response = decode_upstream(_RESPONSE, raw)
        yield Started(
            response.id or self._stamp.id,
            response.model or self._stamp.model,
            int(response.created_at or self._stamp.at_s),
            response.service_tier,
        )

    def _end(self, raw: Raw) -> Iterator[StreamEvent]:
        self.is_over = True
        response = decode_upstream(_RESPONSE, raw)
        yield Finished(response.finish(has_calls=bool(self._calls)))
        if response.usage is not None:
            yield Told(response.usage.read())

    def _add(self, event: _Event) -> Iterator[StreamEvent]:
        match event.type:
            case "response.output_text.delta":
                logprobs = _logprobs(event.logprobs)
                if event.delta or logprobs != NULL:
                    yield TextDelta(event.delta, logprobs=logprobs)
            case "response.refusal.delta":
                yield RefusalDelta(event.delta)
            case "response.output_text.annotation.added" if event.annotation is not None:
                if event.annotation.type == "url_citation":
                    yield CitationAdded(event.annotation.read())
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                yield ReasoningDelta(event.delta)
            case "response.reasoning_summary_part.added" if event.summary_index > 0:
                yield ReasoningDelta(_BETWEEN)
            case (
                "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta"
            ) if event.output_index in self._calls:
                self._silent.discard(event.output_index)
                yield ToolCallDelta(self._calls[event.output_index], event.delta)
            case _:
                pass

    def _read_item(self, event: _Event) -> Iterator[StreamEvent]:
        is_done = event.type == "response.output_item.done"
        for part in read_output(event.item or Item()):
            if isinstance(part, ToolCall):
                yield from self._read_call(part, event.output_index, is_done=is_done)
            elif isinstance(part, Reasoning) and is_done and part.signature is not None:
                yield ReasoningDelta(signature=part.signature, is_redacted=part.is_redacted)

    def _read_call(self, call: ToolCall, place: int, *, is_done: bool) -> Iterator[StreamEvent]:
        if place not in self._calls:
            self._calls[place] = len(self._calls)
            self._silent.add(place)
            yield ToolCallStarted(self._calls[place], call.id, call.name, 0, call.is_custom)
        if is_done and place in self._silent and call.arguments:
            yield ToolCallDelta(self._calls[place], call.arguments)


_TOKENS = msgspec.json.Decoder(list[Raw] | None)


def _logprobs(raw: Raw) -> Raw:
    """In the shape of OpenAI's chat completions."""
    tokens = try_decode(_TOKENS, raw)
    return Raw(msgspec.json.encode({"content": tokens})) if tokens else NULL
