"""Requests that go on in the wire they came in: read only as far as the gateway must know.

What is not named here passes untouched.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.http.body import decode_json
from butterbase.ai.wire.decoding import ALL_FIELDS, refusal
from butterbase.ai.wire.protocols import WireName

REACHING_FIELDS: Final = ("mcp_servers", "plugins", "search_parameters", "web_search_options")
"""With which a provider runs tools of its own that are not among `tools`."""

UNSET: Final = frozenset({b"null", b"[]", b"false"})
"""With which it does not."""

_Count = Annotated[int, Meta(ge=1)]


class _StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class _Chat(Struct, frozen=True):
    messages: Annotated[list[Raw], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None


class _Responses(Struct, frozen=True):
    model: str | None = None
    stream: bool | None = None
    max_output_tokens: _Count | None = None


class _Message(Struct, frozen=True):
    messages: Annotated[list[Raw], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None


_CHAT = msgspec.json.Decoder(_Chat)
_RESPONSES = msgspec.json.Decoder(_Responses)
_MESSAGE = msgspec.json.Decoder(_Message)
_OPTIONS = msgspec.json.Decoder(dict[str, Raw] | None)


class PassingRequest(Struct, frozen=True):
    """A request as far as it is read; `fields` has all of it."""

    wire: WireName
    fields: dict[str, Raw]
    model: str | None
    is_streamed: bool = False
    wants_usage: bool = True
    """The client itself asked for the chunk that tells the usage of a stream."""
    token_count: int | None = None
    """Tokens that it lets each choice have."""
    choice_count: int = 1


def open_request(wire: WireName, body: bytes) -> PassingRequest:
    """Raises AiRequestError."""
    fields = decode_json(ALL_FIELDS, body, refusal)
    if wire is WireName.CHAT:
        return _open_chat(body, fields)
    if wire is WireName.RESPONSES:
        asked = decode_json(_RESPONSES, body, refusal)
        return PassingRequest(
            wire, fields, asked.model, bool(asked.stream), token_count=asked.max_output_tokens
        )
    message = decode_json(_MESSAGE, body, refusal)
    return PassingRequest(
        wire, fields, message.model, bool(message.stream), token_count=message.max_tokens
    )


def _open_chat(body: bytes, fields: dict[str, Raw]) -> PassingRequest:
    chat = decode_json(_CHAT, body, refusal)
    options = chat.stream_options or _StreamOptions()
    limits = [n for n in (chat.max_tokens, chat.max_completion_tokens) if n is not None]
    return PassingRequest(
        WireName.CHAT,
        fields,
        chat.model,
        is_streamed=bool(chat.stream),
        wants_usage=bool(options.include_usage),
        token_count=max(limits, default=None),
        choice_count=chat.n or 1,
    )


def render_passing(
    request: PassingRequest, model: str, changes: Mapping[str, object] | None = None
) -> bytes:
    """The body for the provider, with another model and these fields in place of its own.

    It is always rendered anew, so that a field written twice is sent as it was read.
    """
    fields: dict[str, object] = {**request.fields, "model": model, **(changes or {})}
    if request.is_streamed and not request.wants_usage:
        options = _OPTIONS.decode(request.fields.get("stream_options", b"null"))
        fields["stream_options"] = {**(options or {}), "include_usage": True}
    return msgspec.json.encode(fields)
