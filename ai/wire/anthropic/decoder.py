"""A streamed message of Anthropic's → the events of the form.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamCutError
from butterbase.ai.wire.anthropic.answer import FINISHES, AnswerBlock
from butterbase.ai.wire.anthropic.blocks import NATIVE
from butterbase.ai.wire.decoding import decode_upstream, raw_text, try_decode
from butterbase.ai.wire.events import (
    Failed,
    Finished,
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
    Stamp,
)
from butterbase.ai.wire.signatures import unseal
from butterbase.ai.wire.sse import EventStreamDecoder
from butterbase.ai.wire.usage import AnthropicUsage


class _Message(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL


class _Delta(Struct, frozen=True):
    type: str | None = None
    text: str = ""
    thinking: str = ""
    signature: str | None = None
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(Struct, frozen=True):
    type: str = ""
    message: _Message | None = None
    index: int = 0
    content_block: AnswerBlock | None = None
    delta: _Delta | None = None
    usage: Raw = NULL
    error: Raw = NULL


_EVENT = msgspec.json.Decoder(_Event)
_USAGE = msgspec.json.Decoder(AnthropicUsage | None)


_BEGINNINGS = frozenset({"message_start", "content_block_start", "message_delta"})
"""Some who speak this form leave out the first."""


class AnthropicDecoder:
    def __init__(self, stamp: Stamp) -> None:
        self._events = EventStreamDecoder()
        self._stamp = stamp
        self._usage = AnthropicUsage()
        self._calls: dict[int, int] = {}
        """By the index of a block, which call it is."""
        self._silent: set[int] = set()
        """Blocks of calls that told no arguments yet."""
        self._has_started = self._has_finished = self.is_over = False

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Raises UpstreamInvalidError, EventTooLongError."""
        return [e for raw in self._events.feed(chunk) for e in self._read(raw.data)]

    def close(self) -> list[StreamEvent]:
        """Raises UpstreamCutError."""
        events: list[StreamEvent] = []
        rest = self._events.close()
        if rest is not None and rest.data and try_decode(_EVENT, rest.data) is not None:
            events = list(self._read(rest.data))
        # Some who speak this form leave out message_stop.
        if not self.is_over and not self._has_finished:
            raise UpstreamCutError
        return events

    def _read(self, data: bytes | None) -> Iterator[StreamEvent]:
        if not data or self.is_over:
            return
        event = decode_upstream(_EVENT, data)
        if not self._has_started and event.type in _BEGINNINGS:
            yield from self._start(event.message or _Message())
        match event.type:
            case "content_block_start" if event.content_block is not None:
                yield from self._start_block(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                yield from self._add(event.index, event.delta)
            case "content_block_stop" if event.index in self._silent:
                self._silent.discard(event.index)
                yield ToolCallDelta(self._calls[event.index], "{}")
            case "message_delta" if event.delta is not None:
                yield from self._finish(event.delta, event.usage)
            case "message_stop":
                self.is_over = True
            case "error":
                self.is_over = True
                yield Failed(decode_stream_error(data))
            case _:
                pass

    def _start(self, message: _Message) -> Iterator[StreamEvent]:
        self._has_started = True
        stamp = self._stamp
        yield Started(message.id or stamp.id, message.model or stamp.model, stamp.at_s)
        yield from self._tell(message.usage)

    def _start_block(self, index: int, block: AnswerBlock) -> Iterator[StreamEvent]:
        match block.type:
            case "text" if block.text:
                yield TextDelta(block.text)
            case "thinking" if block.thinking or block.signature:
                yield ReasoningDelta(
                    block.thinking, signature=unseal(block.signature, native=NATIVE)
                )
            case "redacted_thinking":
                signature = unseal(block.data, native=NATIVE)
                yield ReasoningDelta(signature=signature, is_redacted=True)
            case "tool_use":
                call = self._calls[index] = len(self._calls)
                yield ToolCallStarted(call, block.id, block.name)
                given = raw_text(block.input)
                if given in {"{}", "null"}:
                    self._silent.add(index)
                else:
                    yield ToolCallDelta(call, given)
            case _:
                pass

    def _add(self, index: int, delta: _Delta) -> Iterator[StreamEvent]:
        match delta.type:
            case "text_delta" if delta.text:
                yield TextDelta(delta.text)
            case "thinking_delta" if delta.thinking:
                yield ReasoningDelta(delta.thinking)
            case "signature_delta" if delta.signature:
                yield ReasoningDelta(signature=unseal(delta.signature, native=NATIVE))
            case "input_json_delta" if delta.partial_json and index in self._calls:
                self._silent.discard(index)
                yield ToolCallDelta(self._calls[index], delta.partial_json)
            case _:
                pass

    def _finish(self, delta: _Delta, usage: Raw) -> Iterator[StreamEvent]:
        if delta.stop_reason is not None and not self._has_finished:
            self._has_finished = True
            finish = FINISHES.get(delta.stop_reason, "stop")
            yield Finished(finish, stop_sequence=delta.stop_sequence)
        yield from self._tell(usage)

    def _tell(self, usage: Raw) -> Iterator[StreamEvent]:
        told = try_decode(_USAGE, usage)
        if told is None:
            return
        self._usage = self._usage.merged(told)
        read = self._usage.read()
        if read is not None:
            yield Told(read)
