"""A whole response of OpenAI's Responses API ↔ ChatAnswer.

https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamRefusedError
from butterbase.ai.wire.decoding import decode_upstream, present
from butterbase.ai.wire.failures import decode_stream_error
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    ChatRequest,
    Choice,
    Finish,
    Part,
    Reasoning,
    Refusal,
    Stamp,
    Text,
    Tool,
    ToolCall,
)
from butterbase.ai.wire.openai_responses.items import (
    Item,
    join,
    read_output,
    render_call,
    render_call_signature,
    render_message,
    render_reasoning,
    render_refusal,
    render_text,
)
from butterbase.ai.wire.usage import ResponsesUsage, render_responses_usage

_REASONS: dict[str, Finish] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
_INCOMPLETE: dict[Finish, str] = {
    "length": "max_output_tokens",
    "context_window": "max_output_tokens",
    "content_filter": "content_filter",
}


class _IncompleteDetails(Struct, frozen=True):
    reason: str | None = None


class WireResponse(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    output: list[Item] = []
    usage: ResponsesUsage | None = None
    error: Raw = NULL
    incomplete_details: _IncompleteDetails | None = None
    service_tier: str | None = None

    def finish(self, *, has_calls: bool) -> Finish:
        if self.status == "incomplete":
            details = self.incomplete_details or _IncompleteDetails()
            return _REASONS.get(details.reason or "", "length")
        return "tool_calls" if has_calls else "stop"


_RESPONSE = msgspec.json.Decoder(WireResponse)


def decode_answer(body: bytes, stamp: Stamp) -> ChatAnswer:
    """Raises UpstreamInvalidError, UpstreamRefusedError."""
    wire = decode_upstream(_RESPONSE, body)
    if wire.error != NULL:
        raise UpstreamRefusedError(decode_stream_error(body))
    parts: list[Part] = []
    for item in wire.output:
        parts = join(parts, read_output(item))
    finish = wire.finish(has_calls=any(isinstance(part, ToolCall) for part in parts))
    return ChatAnswer(
        id=wire.id or stamp.id,
        model=wire.model or stamp.model,
        created_s=int(wire.created_at or stamp.at_s),
        choices=(Choice(0, tuple(parts), finish),),
        usage=None if wire.usage is None else wire.usage.read(),
        service_tier=wire.service_tier,
    )


def encode_answer(answer: ChatAnswer, request: ChatRequest) -> bytes:
    """Of several choices the first one; this wire has no others."""
    choice = answer.first
    finish = choice.finish or "stop"
    head = ResponseHead(answer.id, answer.model, answer.created_s, request)
    status = render_status(finish)["status"]
    items = list(_items(choice.parts, head, status))
    usage = None if answer.usage is None else render_responses_usage(answer.usage)
    return msgspec.json.encode(
        head.render(items, usage=usage, service_tier=answer.service_tier, **render_status(finish))
    )


def render_status(finish: Finish) -> dict[str, Any]:
    reason = _INCOMPLETE.get(finish)
    if reason is None:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def _items(parts: tuple[Part, ...], head: "ResponseHead", status: str) -> Iterator[dict[str, Any]]:
    count = 0
    for is_said, group in groupby(parts, lambda part: isinstance(part, Text | Refusal)):
        if is_said:
            contents = [
                render_text(part) if isinstance(part, Text) else render_refusal(part)
                for part in group
                if isinstance(part, Text | Refusal)
            ]
            yield render_message(head.item_id("msg", count), contents, status)
            count += 1
            continue
        for part in group:
            if isinstance(part, Reasoning):
                yield render_reasoning(head.item_id("rs", count), part)
            elif isinstance(part, ToolCall):
                if part.signature is not None:
                    yield render_call_signature(head.item_id("rs", count), part.signature)
                    count += 1
                yield render_call(head.item_id("fc", count), part, status)
            count += 1


class ResponseHead:
    """What a response says of itself and of its request, the same in each event of a stream."""

    def __init__(self, answer_id: str, model: str, created_s: int, request: ChatRequest) -> None:
        self._suffix = answer_id.removeprefix("resp_")
        self._fields = {
            "id": f"resp_{self._suffix}",
            "object": "response",
            "created_at": created_s,
            "model": model,
            "error": None,
            **_echo(request),
        }

    def item_id(self, kind: str, number: int) -> str:
        return f"{kind}_{self._suffix}_{number}"

    def render(self, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._fields, "output": output, "incomplete_details": None, **more}


def _echo(request: ChatRequest) -> dict[str, Any]:
    wanted, thinking = request.response_format, request.thinking
    format_ = {"type": "text"}
    if wanted is not None:
        made = {
            "type": wanted.kind,
            "name": wanted.name,
            "description": wanted.description,
            "schema": wanted.schema,
            "strict": wanted.is_strict,
        }
        format_ = present(made)
    return {
        "background": False,
        "instructions": request.extra.get("instructions"),
        "max_output_tokens": request.max_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.is_parallel is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": thinking and thinking.effort,
            "summary": thinking and thinking.summary,
        },
        "store": False,
        "temperature": request.temperature,
        "text": present({"format": format_, "verbosity": request.verbosity}),
        "tool_choice": render_tool_choice(request),
        "tools": [render_tool(tool) for tool in request.tools],
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


def render_tool_choice(request: ChatRequest) -> str | dict[str, Any]:
    choice = request.tool_choice
    if choice is None or not choice.names:
        return "auto" if choice is None else choice.mode
    custom = {tool.name for tool in request.tools if tool.is_custom}
    named = [{"type": "custom" if n in custom else "function", "name": n} for n in choice.names]
    if choice.mode == "required" and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}


def render_tool(tool: Tool) -> dict[str, Any]:
    common = present({"name": tool.name, "description": tool.description})
    if tool.is_custom:
        return {"type": "custom", **common, **present({"format": tool.format})}
    # Where it is not said, this API is strict and others are not.
    strict = bool(tool.is_strict)
    return {"type": "function", **common, "parameters": tool.schema, "strict": strict}
