"""Columns in Postgres's text format → JSON, byte for byte as `to_json` writes it; without IO.

The text must come from a session with DateStyle ISO, TimeZone UTC, bytea_output hex and
extra_float_digits 1 or more, as the replication connection sets them.

What the log tells of a type is its oid. `Types` knows the built-in ones, and is told of domains,
composites and arrays by whoever can ask the database (`types_query`). A type that it does not know
becomes a JSON string of its text. That is what `to_json` does too, except for types with a cast to
json, of which hstore alone is known.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.ingest.changes import Column, Row, Toast
from butterbase.ingest.errors import MalformedMessageError

Encoder: TypeAlias = Callable[[str], bytes]

_encode_text: Encoder = msgspec.json.Encoder().encode
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)

# One token of an array literal. The bounds prefix `[0:1][2:3]=` is only written when a lower bound
# is not 1; JSON has no place for it.
# https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
_ARRAY_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=", re.ASCII)
_ARRAY_TOKENS = {
    delimiter: re.compile(
        rf'(?P<punctuation>[{{}}{delimiter}])|"(?P<quoted>(?:[^"\\]|\\.)*)"'
        rf'|(?P<bare>[^{{}}{delimiter}"\\]+)',
        re.DOTALL,
    )
    for delimiter in ",;"
}
_ARRAY_TOKEN = _ARRAY_TOKENS[","]

# One field of a composite's literal and what ends it. An empty field that is not quoted is NULL.
# https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
_FIELD = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|""|\\.)*)"|(?P<bare>[^,()"\\]*))([,)])', re.DOTALL)
_FIELD_ESCAPED = re.compile(r'["\\](.)', re.DOTALL)

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

# https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP
_HSTORE_PAIR = re.compile(
    r'"(?P<key>(?:[^"\\]|\\.)*)"=>(?:"(?P<value>(?:[^"\\]|\\.)*)"|NULL)(?:, |\Z)', re.DOTALL
)


# Composites' attributes are rows' columns too, so the types that they have are asked for as well.
_TYPES_QUERY: Final = """
    with recursive wanted (oid) as (
      select t.oid from pg_type t where t.oid = any(%s)
      union
      select part.oid from wanted
      join pg_type t on t.oid = wanted.oid
      cross join lateral (
        select unnest(array[t.typelem, t.typbasetype])
        union all
        select a.atttypid from pg_attribute a
        where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped
      ) part (oid)
      where part.oid <> 0
    )
    select coalesce(json_agg(json_build_object(
      'oid', t.oid::int8, 'base', t.typbasetype::int8,
      -- as get_element_type: point and name have a typelem as well, but are no arrays
      'element', case when t.typsubscript = 'array_subscript_handler'::regproc
        then t.typelem::int8 else 0 end,
      'delimiter', coalesce((select e.typdelim from pg_type e where e.oid = t.typelem), ','),
      'attributes', (
        select coalesce(json_agg(json_build_array(a.attname, a.atttypid::int8) order by a.attnum),
          '[]')
        from pg_attribute a
        where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped
      ),
      'is_hstore', hstore.is_it) order by t.oid), '[]')
    from wanted
    join pg_type t using (oid)
    cross join lateral (
      select exists (
        select from pg_cast c join pg_proc f on f.oid = c.castfunc
        where c.castsource = t.oid and c.casttarget = 'json'::regtype
          and f.prosrc = 'hstore_to_json' and f.prolang = 13) as is_it  -- 13: C
    ) hstore
    where t.typbasetype <> 0 or t.typelem <> 0 or t.typrelid <> 0 or hstore.is_it
"""


def types_query(oids: str) -> str:
    """The types that columns' types are made of, and these; `oids` is SQL, an array.

    The query's answer is a JSON array of Type. Those that are made of no others are left out.
    """
    return _TYPES_QUERY % oids


class Type(Struct, frozen=True):
    """A row of pg_type, as far as JSON depends on it."""

    oid: int
    base: int = 0
    """Of a domain."""
    element: int = 0
    """Of an array."""
    delimiter: str = ","
    """Between the elements of an array: a comma, except for box[]."""
    attributes: tuple[tuple[str, int], ...] = ()
    """Of a composite: names and the oids of their types."""
    is_hstore: bool = False
    """Which is an object, since the extension has a cast to json."""


class RowEncoder:
    """Writes some columns of a table's rows as JSON objects."""

    def __init__(self, types: "Types", columns: Iterable[tuple[int, Column]]) -> None:
        """`columns` with their places in a row, in the order in which they are written."""
        self._fields = [
            (_key(column.name), types.encoder(column.type_oid), place) for place, column in columns
        ]

    def encode(self, row: Row) -> bytes:
        """An unchanged large value is left out: it is not known. Raises MalformedMessageError."""
        return b"{%b}" % b",".join(
            [
                key + (b"null" if value is None else encode(value))
                for key, encode, place in self._fields
                if (value := row[place]) is not Toast.UNCHANGED
            ]
        )

    def encode_short(self, row: Row, *, value_bytes_max: int, always: Collection[int]) -> bytes:
        """As `encode`, without longer values, except for those of the places in `always`."""
        told = []
        for key, encode, place in self._fields:
            value = row[place]
            if value is not Toast.UNCHANGED:
                text = b"null" if value is None else encode(value)
                if len(text) <= value_bytes_max or place in always:
                    told.append(key + text)
        return b"{%b}" % b",".join(told)


class Types:
    """How the values of each type are written, built-in ones and those given."""

    def __init__(self, types: Iterable[Type] = ()) -> None:
        self._types = {type_.oid: type_ for type_ in types if type_.oid not in _ENCODERS}
        self._encoders = dict(_ENCODERS)

    def encode_value(self, type_oid: int, text: str) -> bytes:
        """One value, not NULL, as JSON. Raises MalformedMessageError for an array that is none."""
        return self.encoder(type_oid)(text)

    def encode_row(self, columns: Sequence[Column], row: Row) -> bytes:
        """A JSON object with the columns in order.

        An unchanged large value is left out: it is not known. Raises MalformedMessageError.
        """
        return RowEncoder(self, enumerate(columns)).encode(row)

    def encoder(self, type_oid: int) -> Encoder:
        """For values that are not NULL."""
        encoder = self._encoders.get(type_oid)
        if encoder is None:
            encoder = self._encoders[type_oid] = self._made_encoder(self._types.get(type_oid))
        return encoder

    def _made_encoder(self, type_: Type | None) -> Encoder:
        if type_ is None:
            return _encode_text
        if type_.is_hstore:
            return _encode_hstore
        if type_.base:
            return self.encoder(type_.base)
        if type_.element:
            tokens = _ARRAY_TOKENS[";" if type_.delimiter == ";" else ","]
            return partial(_encode_array, self.encoder(type_.element), tokens=tokens)
        if type_.attributes:
            attributes = [(_key(name), self.encoder(oid)) for name, oid in type_.attributes]
            return partial(_encode_composite, attributes)
        return _encode_text


def encode_value(type_oid: int, text: str) -> bytes:
    """As Types.encode_value, for built-in types."""
    return BUILT_IN.encode_value(type_oid, text)


def encode_row(columns: Sequence[Column], row: Row) -> bytes:
    """As Types.encode_row, for built-in types."""
    return BUILT_IN.encode_row(columns, row)


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


def _encode_composite(attributes: Sequence[tuple[bytes, Encoder]], text: str) -> bytes:
    fields = _fields(text)
    if len(fields) != len(attributes):
        # The type was altered since it was asked for, or since the value was written.
        return _encode_text(text)
    return b"{%b}" % b",".join(
        key + (b"null" if field is None else encode(field))
        for (key, encode), field in zip(attributes, fields, strict=True)
    )


def _fields(text: str) -> list[str | None]:
    fields: list[str | None] = []
    position = 1
    while field := _FIELD.match(text, position):
        quoted = field["quoted"]
        fields.append(
            _FIELD_ESCAPED.sub(r"\1", quoted) if quoted is not None else field["bare"] or None
        )
        position = field.end()
        if field[3] == ")":
            break
    if not text.startswith("(") or not text.endswith(")") or position != len(text):
        raise MalformedMessageError(f"not a composite: {text[:60]!r}")
    return fields


def _encode_hstore(text: str) -> bytes:
    pairs = []
    position = 0
    while pair := _HSTORE_PAIR.match(text, position):
        key, value = pair["key"], pair["value"]
        told = b"null" if value is None else _encode_text(_ESCAPED.sub(r"\1", value))
        pairs.append(_encode_text(_ESCAPED.sub(r"\1", key)) + b": " + told)
        position = pair.end()
    if position != len(text):
        raise MalformedMessageError(f"not an hstore: {text[:60]!r}")
    return b"{%b}" % b", ".join(pairs)


def _encode_vector(encode_element: Encoder, text: str) -> bytes:
    """int2vector, oidvector: elements with blanks between."""
    return b"[%b]" % b",".join(map(encode_element, text.split()))


def _encode_array(
    encode_element: Encoder, text: str, *, tokens: re.Pattern[str] = _ARRAY_TOKEN
) -> bytes:
    bounds = _ARRAY_BOUNDS.match(text)
    position = bounds.end() if bounds else 0
    # The innermost open array is last; the first list receives the outermost array.
    open_arrays: list[list[bytes]] = [[]]
    while token := tokens.match(text, position):
        is_inside = len(open_arrays) > 1
        match token["punctuation"]:
            case "{":
                open_arrays.append([])
            case "}" if is_inside:
                closed = b"[%b]" % b",".join(open_arrays.pop())
                open_arrays[-1].append(closed)
            case "," | ";" if is_inside:
                pass
            case None if is_inside:
                open_arrays[-1].append(_encode_element(encode_element, token))
            case _:
                break
        position = token.end()
    if position != len(text) or len(open_arrays) != 1 or len(open_arrays[0]) != 1:
        raise MalformedMessageError(f"not an array: {text[:60]!r}")
    return open_arrays[0][0]


def _encode_element(encode_element: Encoder, token: re.Match[str]) -> bytes:
    quoted = token["quoted"]
    if quoted is not None:
        return encode_element(_ESCAPED.sub(r"\1", quoted))
    return b"null" if token["bare"] == "NULL" else encode_element(token["bare"])


# (type's oid, its array's oid, encoder), from pg_type.dat. oid itself is a string in to_json.
_TYPES: Final[tuple[tuple[int, int, Encoder], ...]] = (
    (16, 1000, _encode_bool),
    (17, 1001, _encode_text),  # bytea
    (18, 1002, _encode_text),  # "char"
    (19, 1003, _encode_text),  # name
    (20, 1016, _encode_raw),  # int8
    (21, 1005, _encode_raw),  # int2
    (22, 1006, partial(_encode_vector, _encode_raw)),  # int2vector
    (23, 1007, _encode_raw),  # int4
    (25, 1009, _encode_text),  # text
    (26, 1028, _encode_text),  # oid
    (30, 1013, partial(_encode_vector, _encode_text)),  # oidvector
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
_ENCODERS: Final[dict[int, Encoder]] = {
    **{oid: encode for oid, _, encode in _TYPES},
    **{array: partial(_encode_array, encode) for _, array, encode in _TYPES},
}

BUILT_IN: Final = Types()
