"""Redaction over a whole request, and back over its answer; without IO."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from butterbase.ai.errors import AiRequestError
from butterbase.ai.guards.policy import Kind
from butterbase.ai.guards.redaction import Redaction, hide
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    ChatRequest,
    File,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.trees import read_value, write_tree

BASE64_LENGTH_MIN = 256
"""Of what is taken for bytes and not for words."""

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\r\n")


def texts_of(tree: object) -> Iterator[str]:
    """Every text in a tree of JSON, but bytes written as text."""
    if isinstance(tree, str):
        if not _is_bytes(tree):
            yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from texts_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts_of(value)


def _is_bytes(text: str) -> bool:
    return len(text) >= BASE64_LENGTH_MIN and (text.startswith("data:") or _BASE64.issuperset(text))


def redact_request(request: ChatRequest, redaction: Redaction) -> ChatRequest:
    """All texts that a provider would get. As they are: names of tools, addresses of pictures and
    files, and thoughts that are signed, which their provider has written itself."""
    redact = redaction.redact
    format_ = request.response_format
    return replace(
        request,
        messages=tuple(_message(message, redact) for message in request.messages),
        tools=tuple(_tool(tool, redact) for tool in request.tools),
        response_format=format_ and replace(format_, schema=_raw(format_.schema, redact)),
        stop=tuple(map(redact, request.stop)),
        user=request.user and redact(request.user),
        metadata=request.metadata
        and {name: redact(value) for name, value in request.metadata.items()},
        extra={name: _raw(value, redact) for name, value in request.extra.items()},
    )


def _message(message: Message, redact: Callable[[str], str]) -> Message:
    parts = tuple(_part(part, redact) for part in message.parts)
    return replace(message, parts=parts, name=message.name and redact(message.name))


def _part(part: Part, redact: Callable[[str], str]) -> Part:
    match part:
        case Text() | Refusal():
            return replace(part, text=redact(part.text))
        case ToolCall():
            return replace(part, arguments=_arguments(part, redact))
        case ToolResult():
            return replace(part, parts=tuple(_part(inner, redact) for inner in part.parts))
        case File():
            return replace(
                part,
                text=part.text and redact(part.text),
                context=part.context and redact(part.context),
                name=part.name and redact(part.name),
            )
        case Reasoning() if part.signature is None:
            return replace(part, text=redact(part.text))
        case _:
            return part


def _arguments(call: ToolCall, redact: Callable[[str], str]) -> str:
    # In JSON the letter of an escape would be taken for one of the value.
    if call.is_custom:
        return redact(call.arguments)
    try:
        tree = read_value(call.arguments.encode())
    except (AiRequestError, UnicodeEncodeError):
        return redact(call.arguments)
    redacted = _redacted(tree, redact)
    return call.arguments if redacted == tree else write_tree(redacted).decode()


def _tool(tool: Tool, redact: Callable[[str], str]) -> Tool:
    return replace(
        tool,
        description=tool.description and redact(tool.description),
        schema=_raw(tool.schema, redact),
        format=_raw(tool.format, redact),
    )


def _raw(value: Raw, redact: Callable[[str], str]) -> Raw:
    """Raises AiRequestError."""
    if value == NULL:
        return value
    tree = read_value(bytes(value))
    redacted = _redacted(tree, redact)
    return value if redacted == tree else Raw(write_tree(redacted))


def _redacted(tree: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(tree, str):
        return tree if _is_bytes(tree) else redact(tree)
    if isinstance(tree, dict):
        return {name: _redacted(value, redact) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_redacted(value, redact) for value in tree]
    return tree


def hide_in_embedding(
    body: bytes, kinds: frozenset[Kind], counts: "Counter[Kind]", *, chars_max: int
) -> bytes | None:
    """The body of a request for embeddings without the values, which `counts` tells; None where it
    has more text than that. Raises AiRequestError."""
    tree = read_value(body)
    if _has_tokens(tree.get("input")):
        raise AiRequestError(
            "the app redacts texts, and numbers of tokens cannot be read",
            param="input",
            hint="send the texts themselves",
        )
    if sum(map(len, texts_of(tree))) > chars_max:
        return None
    model = {"model": tree["model"]} if "model" in tree else {}
    hidden = _redacted(tree, lambda text: hide(text, kinds, counts)) | model
    return write_tree(hidden) if counts else body


def _has_tokens(inputs: object) -> bool:
    return isinstance(inputs, list) and not all(isinstance(text, str) for text in inputs)


# The answer


def escape_json(value: str) -> str:
    """As it stands inside of a JSON text."""
    return json.dumps(value)[1:-1]


def restore_answer(answer: ChatAnswer, redaction: Redaction) -> ChatAnswer:
    """Thoughts stay as they are: their provider may have signed them, and wants them back so."""
    return replace(
        answer,
        choices=tuple(
            replace(choice, parts=tuple(_restored(part, redaction) for part in choice.parts))
            for choice in answer.choices
        ),
    )


def _restored(part: Part, redaction: Redaction) -> Part:
    match part:
        case Text() | Refusal():
            return replace(part, text=redaction.restore(part.text))
        case ToolCall(is_custom=True):
            return replace(part, arguments=redaction.restore(part.arguments))
        case ToolCall():
            return replace(part, arguments=redaction.restore(part.arguments, escape_json))
        case _:
            return part
