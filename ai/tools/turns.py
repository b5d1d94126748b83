"""Turns of a conversation in each client's wire, as its own clients would write them; pure.

After a turn in which the model calls tools of the app's, the next request is the one before with
that turn and the results behind it. So each request to a model is one that a client could have
sent, and all that holds for such holds for it.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.wire.decoding import ALL_FIELDS, present, try_decode
from butterbase.ai.wire.form import NULL, ChatAnswer, Tool, ToolCall, Usage
from butterbase.ai.wire.usage import (
    render_anthropic_usage,
    render_chat_usage,
    render_responses_usage,
)

_LIST = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)

Fields: TypeAlias = dict[str, Raw]
"""Of an object, each as it came: numbers keep their digits."""


class Result(Struct, frozen=True):
    """Of one call of a tool."""

    call_id: str
    text: str
    is_error: bool = False
    may_have_changed: bool = False
    """Something, so that the request is not to be made again unasked."""


class Turns(Protocol):
    history: str
    """The field that the turns stand in."""

    def tool(self, tool: Tool) -> dict[str, Any]:
        """As a client offers one of its own."""
        ...

    def name_of(self, tool: Fields) -> str | None:
        """Of a client's own tool."""
        ...

    def choice_of(self, name: str) -> dict[str, Any]:
        """The model must call this tool."""
        ...

    def no_choice(self) -> object:
        """The model may call none."""
        ...

    def turn(
        self, body: bytes, answer: ChatAnswer, results: Sequence[Result], *, is_kept: bool
    ) -> list[object]:
        """What follows in the history: what the model said in `body`, and the results.

        `is_kept`: the provider may find again what it has told in this turn, by its id.
        """
        ...

    def without(self, body: bytes, call_ids: Collection[str], usage: Usage | None) -> bytes:
        """The answer without these calls, and with this usage."""
        ...


def fields_of(data: bytes | Raw | None) -> Fields:
    """Of no object none."""
    return {} if data is None else try_decode(ALL_FIELDS, data) or {}


def objects_of(raw: Raw | None) -> list[Fields]:
    """Of a list."""
    return [fields_of(item) for item in try_decode(_LIST, NULL if raw is None else raw) or ()]


def text_of(raw: Raw | None) -> str | None:
    return None if raw is None else try_decode(_TEXT, raw)


def _patched(body: bytes, changes: dict[str, object]) -> bytes:
    return msgspec.json.encode({**fields_of(body), **changes}) if changes else body


class ChatTurns:
    history = "messages"

    def tool(self, tool: Tool) -> dict[str, Any]:
        function = {"description": tool.description, "parameters": tool.schema}
        return {"type": "function", "function": {"name": tool.name, **present(function)}}

    def name_of(self, tool: Fields) -> str | None:
        named = tool.get("function") or tool.get("custom")
        return text_of(fields_of(named).get("name"))

    def choice_of(self, name: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name}}

    def no_choice(self) -> object:
        return "none"

    def turn(
        self, body: bytes, answer: ChatAnswer, results: Sequence[Result], *, is_kept: bool
    ) -> list[object]:
        told = _message(body)
        calls = [part for part in answer.first.parts if isinstance(part, ToolCall)]
        written = objects_of(told.get("tool_calls"))
        if len(written) != len(calls):
            written = [{} for _ in calls]
        made: dict[str, Any] = {"role": "assistant", "content": text_of(told.get("content")) or ""}
        made |= {name: told[name] for name in _THOUGHTS if told.get(name, NULL) != NULL}
        made["tool_calls"] = [_call(c, w) for c, w in zip(calls, written, strict=True)]
        return [made, *(_chat_result(result) for result in results)]

    def without(self, body: bytes, call_ids: Collection[str], usage: Usage | None) -> bytes:
        changes: dict[str, object] = {}
        if usage is not None:
            changes["usage"] = render_chat_usage(usage)
        if call_ids:
            changes["choices"] = _choices_without(body, call_ids)
        return _patched(body, changes)


_THOUGHTS = ("reasoning_content", "reasoning_details", "thinking_blocks", "extra_content")
"""What providers want to see again of a turn that calls tools; others refuse to see more."""


def _message(body: bytes) -> Fields:
    choices = objects_of(fields_of(body).get("choices"))
    return fields_of(choices[0].get("message")) if choices else {}


def _choices_without(body: bytes, call_ids: Collection[str]) -> list[dict[str, Any]]:
    choices: list[dict[str, Any]] = []
    for choice in objects_of(fields_of(body).get("choices")):
        message: dict[str, Any] = dict(fields_of(choice.get("message")))
        calls = objects_of(message.pop("tool_calls", None))
        if kept := [call for call in calls if text_of(call.get("id")) not in call_ids]:
            message["tool_calls"] = kept
        choices.append({**choice, "message": message})
    return choices


def _call(call: ToolCall, written: Fields) -> dict[str, Any]:
    """With what its provider wrote beside it, such as the signature of a thought."""
    signed = written.get("extra_content", NULL)
    kept = {} if signed == NULL else {"extra_content": signed}
    if call.is_custom:
        custom = {"name": call.name, "input": call.arguments}
        return {"id": call.id, "type": "custom", "custom": custom, **kept}
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function, **kept}


def _chat_result(result: Result) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": result.call_id, "content": result.text}


class ResponsesTurns:
    history = "input"

    def tool(self, tool: Tool) -> dict[str, Any]:
        return {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.schema,
            "strict": False,
        }

    def name_of(self, tool: Fields) -> str | None:
        return text_of(tool.get("name"))

    def choice_of(self, name: str) -> dict[str, Any]:
        return {"type": "function", "name": name}

    def no_choice(self) -> object:
        return "none"

    def turn(
        self, body: bytes, answer: ChatAnswer, results: Sequence[Result], *, is_kept: bool
    ) -> list[object]:
        items = objects_of(fields_of(body).get("output"))
        if not is_kept:
            items = [_standing_alone(item) for item in items if _stands_alone(item)]
        outputs = [
            {"type": "function_call_output", "call_id": result.call_id, "output": result.text}
            for result in results
        ]
        return [*items, *outputs]

    def without(self, body: bytes, call_ids: Collection[str], usage: Usage | None) -> bytes:
        changes: dict[str, object] = {}
        if usage is not None:
            changes["usage"] = render_responses_usage(usage)
        if call_ids:
            items = objects_of(fields_of(body).get("output"))
            changes["output"] = [i for i in items if text_of(i.get("call_id")) not in call_ids]
        return _patched(body, changes)


def _stands_alone(item: Fields) -> bool:
    """Whether it can be read by a provider that keeps nothing."""
    is_thought = text_of(item.get("type")) == "reasoning"
    return not is_thought or bool(text_of(item.get("encrypted_content")))


def _standing_alone(item: Fields) -> Fields:
    # An id is one of the provider's own, or nobody knows it.
    return {name: value for name, value in item.items() if name not in {"id", "status"}}


class MessagesTurns:
    history = "messages"

    def tool(self, tool: Tool) -> dict[str, Any]:
        described = {} if tool.description is None else {"description": tool.description}
        return {"name": tool.name, **described, "input_schema": tool.schema}

    def name_of(self, tool: Fields) -> str | None:
        return text_of(tool.get("name"))

    def choice_of(self, name: str) -> dict[str, Any]:
        return {"type": "tool", "name": name}

    def no_choice(self) -> object:
        return {"type": "none"}

    def turn(
        self, body: bytes, answer: ChatAnswer, results: Sequence[Result], *, is_kept: bool
    ) -> list[object]:
        content = fields_of(body).get("content", Raw(b"[]"))
        blocks = [_message_result(result) for result in results]
        return [{"role": "assistant", "content": content}, {"role": "user", "content": blocks}]

    def without(self, body: bytes, call_ids: Collection[str], usage: Usage | None) -> bytes:
        changes: dict[str, object] = {}
        if usage is not None:
            changes["usage"] = render_anthropic_usage(usage)
        if call_ids:
            blocks = objects_of(fields_of(body).get("content"))
            changes["content"] = [b for b in blocks if text_of(b.get("id")) not in call_ids]
        return _patched(body, changes)


def _message_result(result: Result) -> dict[str, Any]:
    made = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.text}
    return {**made, "is_error": True} if result.is_error else made


TURNS: dict[Endpoint, Turns] = {
    Endpoint.CHAT: ChatTurns(),
    Endpoint.RESPONSES: ResponsesTurns(),
    Endpoint.MESSAGES: MessagesTurns(),
}
