"""json and jsonb: the operators `->`, `->>` and `?` on parsed text, as Postgres answers them."""

import json
import re
from typing import Any, Final, NoReturn, TypeAlias

from msgspec import Struct

from butterbase.realtime.changes.compiled.errors import UnanswerableError

Json: TypeAlias = Any
"""dict, list, str, bool, Number, or None for JSON's null, inside a Document."""

# What text in Postgres cannot hold; Python reads it without complaint.
_UNREADABLE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_DIGIT_COUNT_MAX: Final = 300
_BYTE_COUNT_MAX: Final = 1_000_000
_DEPTH_MAX: Final = 100
_BRACKET: Final = re.compile(r"[\[\]{}]")


class Number(Struct, frozen=True):
    """A number's own text."""

    text: str


class Document(Struct, frozen=True):
    """A value of type json or jsonb, so that JSON's null is not SQL's."""

    value: Json

    def __hash__(self) -> int:
        return hash(repr(self.value))  # objects and arrays have no hash of their own


def parse_json(text: str) -> Document:
    """Raises UnanswerableError."""
    if len(text) > _BYTE_COUNT_MAX or _is_deep(text) or _UNREADABLE.search(text):
        raise UnanswerableError("JSON that is left to Postgres")
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise UnanswerableError("not JSON") from None
    return Document(value)


def _is_deep(text: str) -> bool:
    """Whether comparing or hashing the value might exceed Python's stack, wherever that is done.
    Brackets in strings count as well.
    """
    if text.count("[") + text.count("{") <= _DEPTH_MAX:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > _DEPTH_MAX:
            return True
    return False


def field(document: Document, key: str) -> Document | None:
    """`document -> key`."""
    if isinstance(document.value, dict) and key in document.value:
        return Document(document.value[key])
    return None


def field_text(document: Document, key: str, *, is_binary: bool) -> str | None:
    """`document ->> key`, of a jsonb or of a json. Raises UnanswerableError."""
    if not isinstance(document.value, dict):
        return None
    return _text(document.value.get(key), is_binary=is_binary)


def has_key(document: Document, key: str) -> bool:
    """`document ? key`, of a jsonb."""
    value = document.value
    if isinstance(value, dict | list):
        return key in value
    return isinstance(value, str) and value == key


def _text(value: Json, *, is_binary: bool) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case Number(text):
            return _numeric_text(text) if is_binary else text
        case _:
            raise UnanswerableError("an object or array as text")


def _numeric_text(text: str) -> str:
    # A numeric has no negative zero.
    return text.lstrip("-") if not text.strip("-0.") else text


def _number(text: str) -> Number:
    if "e" in text or "E" in text or len(text) > _DIGIT_COUNT_MAX:
        raise UnanswerableError("a number that is left to Postgres")
    return Number(text)


def _refuse(text: str) -> NoReturn:
    raise UnanswerableError(f"{text} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_refuse)
