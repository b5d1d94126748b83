"""A whole message of Anthropic's ↔ ChatAnswer.

https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamInvalidError, UpstreamRefusedError
from butterbase.ai.wire.anthropic.blocks import NATIVE, arguments
from butterbase.ai.wire.decoding import decode_upstream, json_object, present, read
from butterbase.ai.wire.failures import decode_stream_error
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    Choice,
    Finish,
    Part,
    Reasoning,
    Refusal,
    Signature,
    Stamp,
    Text,
    ToolCall,
    Usage,
)
from butterbase.ai.wire.signatures import seal, unseal
from butterbase.ai.wire.usage import AnthropicUsage, render_anthropic_usage

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
    "model_context_window_exceeded": "context_window",
}
_RENDERED: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
    "context_window": "model_context_window_exceeded",
}


class AnswerBlock(Struct, frozen=True):
    """Any block of an answer; those of tools that Anthropic runs itself are not read."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str | None = None
    data: str | None = None
    id: str = ""
    name: str = ""
    input: Raw = NULL


class _Answer(Struct, frozen=True):
    content: list[AnswerBlock] | None = None
    error: Raw = NULL
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: AnthropicUsage | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def decode_answer(body: bytes, stamp: Stamp) -> ChatAnswer:
    """Raises UpstreamInvalidError, UpstreamRefusedError."""
    wire = decode_upstream(_ANSWER, body)
    if wire.error != NULL:
        raise UpstreamRefusedError(decode_stream_error(body))
    if wire.content is None:
        raise UpstreamInvalidError("the answer has no content")
    parts = [part for block in wire.content for part in _parts(block)]
    finish = FINISHES.get(wire.stop_reason or "", "stop")
    return ChatAnswer(
        id=wire.id or stamp.id,
        model=wire.model or stamp.model,
        created_s=stamp.at_s,
        choices=(Choice(0, tuple(parts), finish, wire.stop_sequence),),
        usage=read(wire.usage),
    )


def _parts(block: AnswerBlock) -> Iterable[Part]:
    match block.type:
        case "text":
            yield Text(block.text)
        case "thinking":
            yield Reasoning(block.thinking, unseal(block.signature, native=NATIVE))
        case "redacted_thinking":
            yield Reasoning(signature=unseal(block.data, native=NATIVE), is_redacted=True)
        case "tool_use":
            yield ToolCall(block.id, block.name, arguments(block.input))
        case _:
            pass


def render_stop(finish: Finish, stop_sequence: str | None, *, is_refusal: bool) -> dict[str, Any]:
    reason = _RENDERED[finish]
    if finish == "stop" and is_refusal:
        reason = "refusal"
    elif finish == "stop" and stop_sequence is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": stop_sequence}


def encode_answer(answer: ChatAnswer) -> bytes:
    """Of several choices the first one; this wire has no others."""
    choice = answer.first
    is_refusal = any(isinstance(part, Refusal) for part in choice.parts)
    return msgspec.json.encode(
        {
            **render_message(answer.id, answer.model),
            "content": [block for part in choice.parts for block in render_blocks(part)],
            **render_stop(choice.finish or "stop", choice.stop_sequence, is_refusal=is_refusal),
            "usage": render_anthropic_usage(answer.usage or Usage()),
        }
    )


def render_message(answer_id: str, model: str) -> dict[str, Any]:
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def render_blocks(part: Part) -> Iterable[dict[str, Any]]:
    match part:
        case Text() | Refusal():
            if part.text:
                yield {"type": "text", "text": part.text}
        case Reasoning():
            yield render_thought(part)
        case ToolCall():
            if (carried := render_call_signature(part.signature)) is not None:
                yield carried
            yield {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part)}
        case _:
            # Pictures of the model's own: this wire's answers have no place for them.
            pass


def render_thought(part: Reasoning) -> dict[str, Any]:
    signature = seal(part.signature, native=NATIVE)
    if part.is_redacted:
        return {"type": "redacted_thinking", "data": signature}
    return {"type": "thinking", "thinking": part.text, "signature": signature}


def render_call_signature(signature: Signature | None) -> dict[str, Any] | None:
    """A block that carries it: this wire's calls have no place for one, and its clients send
    back what they cannot read in front of the call."""
    if signature is None:
        return None
    return {"type": "redacted_thinking", "data": seal(signature, native=NATIVE)}


def _input(call: ToolCall) -> Any:
    given = None if call.is_custom else json_object(call.arguments)
    # A call that was cut off is told all the same; its reader sees what there is.
    return given if given is not None else present({"input": call.arguments})
