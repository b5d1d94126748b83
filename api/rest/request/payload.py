"""A request's body → what a statement gets of it: JSON, and the names in it. Pure.

JSON is passed on as it came; only as much of it is read as tells the names.
https://docs.postgrest.org/en/stable/references/api/tables_views.html#insert
"""

import csv
import re
from collections.abc import Mapping, Sequence
from io import StringIO

import msgspec
from msgspec import Struct

from butterbase.api.rest.errors import InvalidPayloadError
from butterbase.api.rest.request.encoding import has_null_character, read_pairs
from butterbase.api.rest.request.media import JSON, MediaType, mime

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_RAW = msgspec.json.Decoder(msgspec.Raw)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])

_OPENING = re.compile(rb"[ \t\n\r]*(.?)", re.DOTALL)

LARGE_BYTES = 256 * 1024
"""Reading a larger body takes so long that others would wait for it."""

_PART_ROWS = 1000
_DIFFERENT = "All object keys must match"

_TAKEN_AS_IT_IS = frozenset({"text/plain", "text/xml", "application/octet-stream"})

# Of a field in a CSV, for the whole process: the body's own limit is the one that counts.
csv.field_size_limit(2**31 - 1)


class Payload(Struct, frozen=True):
    parameter: bytes
    """JSON, an object or an array of objects with the same members; or the body as it is."""
    keys: tuple[str, ...] = ()
    """Members to write, or arguments; sorted."""
    is_object: bool = False
    arguments: tuple[tuple[str, str], ...] | None = None
    """Of a function that a form is sent to, in its order, with repetitions."""
    is_raw: bool = False
    """The body is the function's one argument."""


def read_payload(
    body: bytes, media: MediaType, columns: tuple[str, ...] | None, *, is_call: bool
) -> Payload:
    """With `columns`, those are written, whatever members JSON has. Raises InvalidPayloadError."""
    if media.name == JSON:
        if columns is not None:
            _check_depth(body)
            return Payload(body, columns, is_object=_opening(body) == b"{")
        return _read_json(b"{}" if is_call and not body else body)
    if media.name == "text/csv":
        return _read_csv(body)
    if media.name == "application/x-www-form-urlencoded":
        return _read_form(body, is_call=is_call)
    if is_call and media.name in _TAKEN_AS_IT_IS:
        return Payload(body, is_raw=True)
    raise InvalidPayloadError(f"Content-Type not acceptable: {mime(media)}")


def _read_json(body: bytes) -> Payload:
    opening = _opening(body)
    try:
        if opening == b"{":
            return Payload(body, tuple(sorted(_OBJECT.decode(body))), is_object=True)
        if opening == b"[":
            return _read_many(body) if len(body) > LARGE_BYTES else _read_rows(body)
        _RAW.decode(body)
    # Neither text that is not UTF-8 nor deep nesting is a DecodeError.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPayloadError("Empty or invalid json") from error
    return Payload(b"[]")  # a number, a text, … has no rows


def _check_depth(body: bytes) -> None:
    """Postgres's fault for JSON that is nested too deeply would be the server's, not the body's.

    Raises InvalidPayloadError.
    """
    try:
        _RAW.decode(body)
    except RecursionError as error:
        raise InvalidPayloadError("Empty or invalid json") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # what is wrong with it Postgres says best


def _read_rows(body: bytes) -> Payload:
    rows = _rows(body)
    return Payload(body if rows else b"[]", _keys(rows))


def _read_many(body: bytes) -> Payload:
    """As objects, rows take twenty times the body's room: only some of them are at a time."""
    rows = _RAWS.decode(body)
    parts = (rows[start : start + _PART_ROWS] for start in range(0, len(rows), _PART_ROWS))
    found = {_keys(_rows(b"[" + b",".join(part) + b"]")) for part in parts}
    if len(found) > 1:
        raise InvalidPayloadError(_DIFFERENT)
    return Payload(body, found.pop()) if found else Payload(b"[]")


def _rows(body: bytes) -> list[dict[str, msgspec.Raw]]:
    try:
        return _OBJECTS.decode(body)
    except msgspec.ValidationError:
        _RAW.decode(body)  # is JSON of another shape, or raises
        raise InvalidPayloadError(_DIFFERENT) from None


def _read_csv(body: bytes) -> Payload:
    """The first line names the columns; `NULL` is null. A short line is an object of fewer."""
    try:
        lines = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        names, *rows = (line for line in lines if line not in ([], [""]))
    except (ValueError, csv.Error) as error:
        raise InvalidPayloadError("Empty or invalid csv") from error
    objects = [
        {name: None if value == "NULL" else value for name, value in zip(names, row, strict=False)}
        for row in rows
    ]
    keys = _keys(objects, "All lines must have same number of fields")
    return Payload(msgspec.json.encode(objects), keys)


def _read_form(body: bytes, *, is_call: bool) -> Payload:
    text = body.decode("latin-1")
    if has_null_character(text):
        raise InvalidPayloadError("The form has a null character")
    arguments = tuple((name, value or "") for name, value in read_pairs(text))
    members = dict(arguments)
    if is_call:
        return Payload(b"", tuple(sorted(members)), arguments=arguments)
    return Payload(msgspec.json.encode(members), tuple(sorted(members)), is_object=True)


def _opening(body: bytes) -> bytes:
    match = _OPENING.match(body)
    assert match, "the pattern matches anything"
    return match[1]


def _keys(rows: Sequence[Mapping[str, object]], refusal: str = _DIFFERENT) -> tuple[str, ...]:
    """Those of each row. Raises InvalidPayloadError."""
    if not rows:
        return ()
    first = rows[0].keys()
    if any(row.keys() != first for row in rows):
        raise InvalidPayloadError(refusal)
    return tuple(sorted(first))
