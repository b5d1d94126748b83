"""Helpers for reading bodies: a decoder's refusal becomes ours, and names the field."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw

from butterbase.ai.errors import AiRequestError, UpstreamInvalidError, WireUnsupportedError
from butterbase.ai.http.body import decode_json
from butterbase.ai.wire.form import (
    NULL,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ALL_FIELDS = msgspec.json.Decoder(dict[str, Raw])


def refusal(reason: str) -> AiRequestError:
    """Of a client's body that does not decode."""
    at = re.search(r"`\$\.(\w+)", reason) or re.search(r"required field `(\w+)`", reason)
    return AiRequestError(f"the body cannot be read: {reason}", param=at and at[1])


def decode_body(decoder: "msgspec.json.Decoder[T]", body: bytes) -> tuple[T, dict[str, Raw]]:
    """The body as its wire's struct, and all of its fields. Raises AiRequestError."""
    return decode_json(decoder, body, refusal), decode_json(ALL_FIELDS, body, refusal)


def decode_upstream(decoder: "msgspec.json.Decoder[T]", data: bytes | Raw) -> T:
    """Raises UpstreamInvalidError."""
    return decode_json(decoder, data, lambda reason: UpstreamInvalidError(reason))


def try_decode(decoder: "msgspec.json.Decoder[T]", data: bytes | Raw) -> T | None:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def unsupported(param: str, what: str, *, hint: str | None = None) -> WireUnsupportedError:
    return WireUnsupportedError(
        f"the provider of this model does not take {what}", param=param, hint=hint
    )


def refuse_fields(extra: Mapping[str, Raw], names: Sequence[str], why: str) -> None:
    """Raises WireUnsupportedError for the first of these fields that is set."""
    for name in names:
        value = bytes(extra.get(name, NULL))
        if value not in {b"null", b"false", b"{}", b"[]"}:
            raise WireUnsupportedError(f"{name}: {why}", param=name)


class _Readable(Protocol[T_co]):
    def read(self) -> T_co: ...


def read(wire: _Readable[T_co] | None) -> T_co | None:
    """What a wire's struct says in the form; None for none."""
    return None if wire is None else wire.read()


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are neither None nor null."""
    return {n: value for n, value in fields.items() if value is not None and value != NULL}


def raw_text(raw: Raw) -> str:
    """The JSON as a text. What no decoder looked into may be no UTF-8: its bytes are replaced."""
    return bytes(raw).decode(errors="replace")


def json_object(text: str) -> Raw | None:
    """The text as it is, where it is a JSON object; an empty one is the object without fields."""
    if not text.strip():
        return Raw(b"{}")
    data = text.encode()
    return Raw(data) if try_decode(ALL_FIELDS, data) is not None else None
