"""A request's body with a prompt's messages before its own, in the client's wire; without IO."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from butterbase.ai.prompts.errors import PromptCallError
from butterbase.ai.prompts.templates import Message, PromptCall
from butterbase.ai.wire.decoding import ALL_FIELDS, try_decode
from butterbase.ai.wire.form import NULL
from butterbase.ai.wire.protocols import WireName

_CALL = msgspec.json.Decoder(PromptCall)
_LIST = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)


def read_call(fields: dict[str, Raw]) -> PromptCall | None:
    """None: the request calls no prompt of ours. OpenAI's Responses have prompts too, by an `id`.

    Raises PromptCallError.
    """
    raw = fields.get("prompt", NULL)
    named = try_decode(ALL_FIELDS, raw)
    if named is None or ("name" not in named and "id" in named):
        return None
    try:
        return _CALL.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PromptCallError(f"it cannot be read: {error}") from error


def fill(wire: WireName, fields: dict[str, Raw], messages: Sequence[Message]) -> bytes:
    """Raises PromptCallError where what the request has itself cannot be read."""
    rest = {name: raw for name, raw in fields.items() if name != "prompt"}
    if wire is WireName.RESPONSES:
        return msgspec.json.encode({**rest, "input": _rendered(messages) + _input(rest)})
    if wire is WireName.ANTHROPIC:
        return msgspec.json.encode(_anthropic(rest, messages))
    own = _own_list(rest, "messages")
    return msgspec.json.encode({**rest, "messages": _rendered(messages) + own})


def _rendered(messages: Sequence[Message]) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _anthropic(rest: dict[str, Raw], messages: Sequence[Message]) -> dict[str, Any]:
    """What the system says stands apart from the messages there."""
    filled: dict[str, Any] = {
        **rest,
        "messages": _rendered([m for m in messages if m.role != "system"])
        + _own_list(rest, "messages"),
    }
    system = [{"type": "text", "text": m.content} for m in messages if m.role == "system"]
    if system:
        raw = rest.get("system", NULL)
        text = try_decode(_TEXT, raw)
        own = [{"type": "text", "text": text}] if text else _own_list(rest, "system")
        filled["system"] = system + own
    return filled


def _input(rest: dict[str, Raw]) -> list[Any]:
    text = try_decode(_TEXT, rest.get("input", NULL))
    return [{"role": "user", "content": text}] if text else _own_list(rest, "input")


def _own_list(rest: dict[str, Raw], name: str) -> list[Any]:
    raw = rest.get(name, NULL)
    if raw == NULL or (name != "messages" and bytes(raw) == b'""'):
        return []
    found = try_decode(_LIST, raw)
    if found is None:
        raise PromptCallError(f"{name} is no list")
    return list(found)
