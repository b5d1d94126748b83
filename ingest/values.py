"""Columns in Postgres's text format → JSON, byte for byte as `to_json` writes it; without IO.

The text must come from a session with DateStyle ISO, TimeZone UTC, bytea_output hex and
extra_float_digits 1 or more, as the replication connection sets them.

A type not listed here becomes a JSON string of its text. That is what `to_json` does too, except
for composites (objects there), domains, arrays of the user's own types and types with a cast to
json: the log names an oid that says nothing without a catalog. The same goes for box[], int2vector
and oidvector, which stand in no API.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final, TypeAlias

import msgspec

from butterbase.ingest.changes import Column, Row, Toast
from butterbase.ingest.errors import MalformedMessageError

_Encoder: TypeAlias = Callable[[str], bytes]

_encode_text: _Encoder = msgspec.json.Encoder().encode
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)

# One token of an array literal. The bounds prefix `[0:1][2:3]=` is only written when a lower bound
# is not 1; JSON has no place for it.
# https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
_ARRAY_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=", re.ASCII)
_ARRAY_TOKEN = re.compile(
    r'(?P<punctuation>[{},])|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^{},"\\]+)', re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def encode_value(type_oid: int, text: str) -> bytes:
    """One value, not NULL, as JSON. Raises MalformedMessageError for an array that is none."""
    return _ENCODERS.get(type_oid, _encode_text)(text)


def encode_row(columns: Sequence[Column], row: Row) -> bytes:
    """A JSON object with the columns in order.

    An unchanged large value is left out: it is not known. Raises MalformedMessageError.
    """
    return b"{%b}" % b",".join(
        _key(column.name)
        + (b"null" if value is None else _ENCODERS.get(column.type_oid, _encode_text)(value))
        for column, value in zip(columns, row, strict=True)
        if value is not Toast.UNCHANGED
    )


@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return _encode_text(name) + b":"


def _encode_raw(text: str) -> bytes:
    return text.encode()


def _encode_bool(text: str) -> bytes:
    return b"true" if text == "t" else b"false"


def _encode_number(text: str) -> bytes:
    """Digit for digit; NaN and the infinities, which JSON lacks, as strings."""
    return text.encode() if _JSON_NUMBER.fullmatch(text) else _encode_text(text)


def _encode_timestamp(text: str) -> bytes:
    return _encode_text(text.replace(" ", "T", 1))


def _encode_timestamptz(text: str) -> bytes:
    return _encode_text(text.replace(" ", "T", 1).replace("+00", "+00:00", 1))


def _encode_array(encode_element: _Encoder, text: str) -> bytes:
    bounds = _ARRAY_BOUNDS.match(text)
    position = bounds.end() if bounds else 0
    # The innermost open array is last; the first list receives the outermost array.
    open_arrays: list[list[bytes]] = [[]]
    while token := _ARRAY_TOKEN.match(text, position):
        is_inside = len(open_arrays) > 1
        match token["punctuation"]:
            case "{":
                open_arrays.append([])
            case "}" if is_inside:
                closed = b"[%b]" % b",".join(open_arrays.pop())
                open_arrays[-1].append(closed)
            case "," if is_inside:
                pass
            case None if is_inside:
                open_arrays[-1].append(_encode_element(encode_element, token))
            case _:
                break
        position = token.end()
    if position != len(text) or len(open_arrays) != 1 or len(open_arrays[0]) != 1:
        raise MalformedMessageError(f"not an array: {text[:60]!r}")
    return open_arrays[0][0]


def _encode_element(encode_element: _Encoder, token: re.Match[str]) -> bytes:
    quoted = token["quoted"]
    if quoted is not None:
        return encode_element(_ESCAPED.sub(r"\1", quoted))
    return b"null" if token["bare"] == "NULL" else encode_element(token["bare"])


# (type's oid, its array's oid, encoder), from pg_type.dat. oid itself is a string in to_json.
_TYPES: Final[tuple[tuple[int, int, _Encoder], ...]] = (
    (16, 1000, _encode_bool),
    (17, 1001, _encode_text),  # bytea
    (18, 1002, _encode_text),  # "char"
    (19, 1003, _encode_text),  # name
    (20, 1016, _encode_raw),  # int8
    (21, 1005, _encode_raw),  # int2
    (23, 1007, _encode_raw),  # int4
    (25, 1009, _encode_text),  # text
    (26, 1028, _encode_text),  # oid
    (114, 199, _encode_raw),  # json
    (700, 1021, _encode_number),  # float4
    (701, 1022, _encode_number),  # float8
    (869, 1041, _encode_text),  # inet
    (1042, 1014, _encode_text),  # bpchar
    (1043, 1015, _encode_text),  # varchar
    (1082, 1182, _encode_text),  # date
    (1083, 1183, _encode_text),  # time
    (1114, 1115, _encode_timestamp),
    (1184, 1185, _encode_timestamptz),
    (1186, 1187, _encode_text),  # interval
    (1266, 1270, _encode_text),  # timetz
    (1700, 1231, _encode_number),  # numeric
    (2950, 2951, _encode_text),  # uuid
    (3802, 3807, _encode_raw),  # jsonb
)
_ENCODERS: Final[dict[int, _Encoder]] = {
    **{oid: encode for oid, _, encode in _TYPES},
    **{array: partial(_encode_array, encode) for _, array, encode in _TYPES},
}
