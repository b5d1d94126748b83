"""The events of the form → a streamed message of Anthropic's.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec

from butterbase.ai.wire.anthropic.answer import (
    render_call_signature,
    render_message,
    render_stop,
    render_thought,
)
from butterbase.ai.wire.anthropic.blocks import NATIVE
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
from butterbase.ai.wire.failures import stream_error
from butterbase.ai.wire.form import (
    Reasoning,
    Usage,
)
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.signatures import seal
from butterbase.ai.wire.usage import render_anthropic_usage

_TEXT, _THOUGHT, _CALL = "text", "thinking", "tool_use"


class AnthropicEncoder:
    """Blocks follow each other: one begins where the other ends."""

    def __init__(self) -> None:
        self._started = Started("", "", 0)
        self._has_begun = False
        self._usage: Usage | None = None
        self._finish = Finished("stop")
        self._has_refused = False
        self._index = -1
        self._open: str | None = None
        """The kind of the block that is open."""
        self._calls: dict[int, int] = {}
        """By the number of a call, the index of its block."""

    def encode(self, event: StreamEvent) -> bytes:
        if getattr(event, "choice", 0) != 0:
            return b""
        match event:
            case Started():
                self._started = event
            case Told():
                self._usage = event.usage
            case Finished():
                self._finish = event
                return self._begin()
            case Failed():
                return stream_error(WireName.ANTHROPIC, event.error)
            case _:
                return self._say(event)
        return b""

    def _say(
        self,
        event: TextDelta
        | RefusalDelta
        | ImageAdded
        | CitationAdded
        | ReasoningDelta
        | ToolCallStarted
        | ToolCallDelta,
    ) -> bytes:
        match event:
            case TextDelta() | RefusalDelta():
                self._has_refused |= isinstance(event, RefusalDelta)
                return self._begin() + self._text(event.text)
            case ReasoningDelta():
                return self._begin() + self._thought(event)
            case ToolCallStarted():
                return self._begin() + self._start_call(event)
            case ToolCallDelta():
                if not event.arguments:
                    return b""
                delta = {"type": "input_json_delta", "partial_json": event.arguments}
                return self._delta(self._calls[event.index], delta)
            case CitationAdded() | ImageAdded():
                # This wire's answers have no place for them.
                return b""

    def close(self) -> bytes:
        finish = self._finish
        delta = render_stop(finish.finish, finish.stop_sequence, is_refusal=self._has_refused)
        usage = render_anthropic_usage(self._usage or Usage())
        # The last event's usage has no such field.
        del usage["cache_creation"]
        return (
            self._begin()
            + self._stop_block()
            + _event("message_delta", {"delta": delta, "usage": usage})
            + _event("message_stop", {})
        )

    def _begin(self) -> bytes:
        """The message's start: with the first event that says more, as the usage may precede it."""
        if self._has_begun:
            return b""
        self._has_begun = True
        usage = render_anthropic_usage(self._usage or Usage())
        if self._usage is None:
            # Nobody knows them yet; the last event tells all but these.
            del usage["cache_creation"]
        usage.pop("cost", None)  # the last event has it
        message = {**render_message(self._started.id, self._started.model), "usage": usage}
        return _event("message_start", {"message": message})

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        start = b""
        if self._open != _TEXT:
            start = self._start_block(_TEXT, {"type": "text", "text": ""})
        return start + self._delta(self._index, {"type": "text_delta", "text": text})

    def _thought(self, event: ReasoningDelta) -> bytes:
        if event.is_redacted:
            thought = Reasoning(signature=event.signature, is_redacted=True)
            return self._start_block("redacted_thinking", render_thought(thought))
        made = b""
        if self._open != _THOUGHT:
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            made = self._start_block(_THOUGHT, empty)
        if event.text:
            made += self._delta(self._index, {"type": "thinking_delta", "thinking": event.text})
        if event.signature is not None:
            signature = seal(event.signature, native=NATIVE)
            made += self._delta(self._index, {"type": "signature_delta", "signature": signature})
            made += self._stop_block()
        return made

    def _start_call(self, event: ToolCallStarted) -> bytes:
        carried = render_call_signature(event.signature)
        made = b"" if carried is None else self._start_block("redacted_thinking", carried)
        block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        made += self._start_block(_CALL, block)
        self._calls[event.index] = self._index
        return made

    def _start_block(self, kind: str, block: dict[str, Any]) -> bytes:
        made = self._stop_block()
        self._index += 1
        self._open = kind
        return made + _event("content_block_start", {"index": self._index, "content_block": block})

    def _stop_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", {"index": self._index})

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": index, "delta": delta})


def _event(name: str, fields: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": name, **fields})
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
