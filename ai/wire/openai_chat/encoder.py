"""The events of the form → a streamed chat completion.

https://platform.openai.com/docs/api-reference/chat/streaming
"""

from typing import Any

import msgspec

from butterbase.ai.wire.decoding import present
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
    NULL,
    Reasoning,
    Usage,
)
from butterbase.ai.wire.openai_chat.answer import render_citation, render_finish, render_image
from butterbase.ai.wire.openai_chat.reasoning import render_detail, render_google_signature
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.usage import render_chat_usage

DONE = b"data: [DONE]\n\n"


class ChatEncoder:
    def __init__(self, *, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._head: dict[str, Any] = {}
        self._usage: Usage | None = None
        self._begun: set[int] = set()
        """Choices whose role was told."""
        self._custom: set[tuple[int, int]] = set()
        """Choice and index of the calls whose input is a text."""
        self._detail_index: dict[int, int] = {}
        """Which stretch of thoughts each choice is at."""

    def encode(self, event: StreamEvent) -> bytes:
        match event:
            case Started():
                self._start(event)
                return b""
            case Told():
                self._usage = event.usage
                return b""
            case Failed():
                return stream_error(WireName.CHAT, event.error)
            case Finished():
                return self._chunk(event.choice, {}, finish=render_finish(event.finish))
            case TextDelta():
                return self._chunk(event.choice, _text(event), logprobs=event.logprobs)
            case _:
                return self._chunk(event.choice, self._delta(event))

    def _start(self, event: Started) -> None:
        self._head = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": event.created_s,
            "model": event.model,
            **present(
                {
                    "service_tier": event.service_tier,
                    "system_fingerprint": event.fingerprint,
                }
            ),
        }

    def _delta(
        self,
        event: RefusalDelta
        | ImageAdded
        | CitationAdded
        | ReasoningDelta
        | ToolCallStarted
        | ToolCallDelta,
    ) -> dict[str, Any]:
        match event:
            case RefusalDelta():
                return {"refusal": event.text}
            case ImageAdded():
                return {"images": [render_image(event.image)]}
            case CitationAdded():
                return {"annotations": [render_citation(event.citation)]}
            case ReasoningDelta():
                return self._thought(event)
            case ToolCallStarted() | ToolCallDelta():
                return {"tool_calls": [self._tool_call(event)]}

    def close(self) -> bytes:
        if self._usage is None or not self._wants_usage:
            return DONE
        usage = render_chat_usage(self._usage)
        return _event({**self._head, "choices": [], "usage": usage}) + DONE

    def _thought(self, event: ReasoningDelta) -> dict[str, Any]:
        index = self._detail_index.get(event.choice, 0)
        thought = Reasoning(event.text, event.signature, event.is_redacted)
        if event.signature is not None:
            self._detail_index[event.choice] = index + 1
        delta: dict[str, Any] = {"reasoning_details": [render_detail(thought, index)]}
        return {"reasoning_content": event.text, **delta} if event.text else delta

    def _tool_call(self, event: ToolCallStarted | ToolCallDelta) -> dict[str, Any]:
        place = (event.choice, event.index)
        if isinstance(event, ToolCallDelta):
            if place in self._custom:
                return {"index": event.index, "custom": {"input": event.arguments}}
            return {"index": event.index, "function": {"arguments": event.arguments}}
        made = {"index": event.index, "id": event.id, **render_google_signature(event.signature)}
        if event.is_custom:
            self._custom.add(place)
            return {**made, "type": "custom", "custom": {"name": event.name, "input": ""}}
        return {**made, "type": "function", "function": {"name": event.name, "arguments": ""}}

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: msgspec.Raw = NULL,
    ) -> bytes:
        if choice not in self._begun:
            self._begun.add(choice)
            delta = {"role": "assistant", **delta}
        made = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return _event({**self._head, "choices": [made]})


def _text(event: TextDelta) -> dict[str, Any]:
    return {"content": event.text, **render_google_signature(event.signature)}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)
