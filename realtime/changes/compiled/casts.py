"""Conversions between types, where ours come to the same as Postgres's."""

from collections.abc import Callable
from decimal import Decimal
from math import isinf
from typing import Final

from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.json_text import Document, Number, parse_json
from butterbase.realtime.changes.compiled.kinds import (
    INTEGERS,
    NAN,
    Kind,
    Value,
    in_range,
    read,
    to_integer,
    to_uuid,
)

Conversion = Callable[[Value], Value]
"""Of a value that is not NULL. Raises UnanswerableError."""


def _same(value: Value) -> Value:
    return value


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _to_bool(text: str) -> bool:
    lowered = text.strip(" \t\n\v\f\r").lower()
    if lowered not in ("true", "false", "t", "f", "1", "0"):
        raise UnanswerableError(f"not a boolean: {text[:60]!r}")
    return lowered in ("true", "t", "1")


def _json_bool(document: Document) -> bool:
    if not isinstance(document.value, bool):
        raise UnanswerableError("not a boolean in JSON")
    return document.value


def _json_integer(kind: Kind) -> Conversion:
    def convert(document: Document) -> int:
        # A fraction would be rounded, and there are rules for that.
        if not isinstance(document.value, Number):
            raise UnanswerableError("not a number in JSON")
        return to_integer(kind, document.value.text)

    return convert


def _to_float(value: Value) -> Value:
    if value is NAN:
        return NAN
    number = float(value)
    if (isinf(number) and value.is_finite()) or (not number and value):
        raise UnanswerableError(f"out of range: {value}")
    return number


def _to_kind(kind: Kind) -> Conversion:
    return lambda value: in_range(kind, value)


def _from_text(kind: Kind) -> Conversion:
    return lambda text: to_integer(kind, text)


_CONVERSIONS: Final[dict[tuple[Kind, Kind], Conversion]] = {
    (Kind.TEXT, Kind.UUID): to_uuid,
    (Kind.TEXT, Kind.BOOL): _to_bool,
    (Kind.TEXT, Kind.JSON): parse_json,
    (Kind.TEXT, Kind.JSONB): parse_json,
    (Kind.UUID, Kind.TEXT): _same,
    (Kind.BOOL, Kind.TEXT): _bool_text,
    (Kind.BPCHAR, Kind.TEXT): _same,
    (Kind.JSONB, Kind.BOOL): _json_bool,
    (Kind.NUMERIC, Kind.FLOAT8): _to_float,
    **{(Kind.TEXT, kind): _from_text(kind) for kind in INTEGERS},
    **{(kind, Kind.TEXT): str for kind in INTEGERS},
    **{(Kind.JSONB, kind): _json_integer(kind) for kind in INTEGERS},
    **{(kind, Kind.NUMERIC): Decimal for kind in INTEGERS},
    **{(kind, Kind.FLOAT8): float for kind in INTEGERS},
    **{(of, to): _to_kind(to) for of in INTEGERS for to in INTEGERS if of is not to},
}


def is_castable(of: Kind, to: Kind) -> bool:
    return (of, to) in _CONVERSIONS


def conversion(of: Kind, to: Kind) -> Conversion:
    return _CONVERSIONS[of, to]


def literal(kind: Kind, text: str) -> Value:
    """The constant `'text'::kind`, as Postgres writes it. Raises UnanswerableError."""
    if kind is Kind.UUID:
        return to_uuid(text)
    return read(kind, text)
