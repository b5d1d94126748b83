"""A request's query string and headers → what is asked for. Pure.

The grammar is PostgREST's; this version knows `select` with plain columns, `eq` filters, `order`,
`limit` and `offset`. What it does not know is refused by name, never ignored.
https://docs.postgrest.org/en/stable/references/api/tables_views.html
"""

import re
from urllib.parse import parse_qsl

from msgspec import Struct

from butterbase.api.errors import RequestError
from butterbase.sql.filters import Equals, parse_filter
from butterbase.sql.render import Order

SCHEMA = "public"
PARAMETER_COUNT_MAX = 100

_COLUMN = re.compile(r'[^\s"\'(),.:*\0-]+')
_QUOTED = re.compile(r'"[^"\\\0]+"(,"[^"\\\0]+")*')
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


class QueryStringError(RequestError):
    """A parameter of the query string cannot be read."""

    code = "PGRST100"


class UnsupportedError(RequestError):
    """This is not supported."""

    code = "unsupported"


class RestRequest(Struct, frozen=True):
    columns: tuple[str, ...]
    """Columns to answer with; empty means all."""
    written: tuple[str, ...]
    """Columns that an insert writes; empty means the keys of the body."""
    filters: tuple[Equals, ...]
    order: tuple[Order, ...]
    limit: str | None
    offset: str | None


def parse_request(query_string: str) -> RestRequest:
    """Read the query string. Raises QueryStringError, InvalidFilterError, which name the fault."""
    columns: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    order: tuple[Order, ...] = ()
    numbers: dict[str, str] = {}
    filters: list[Equals] = []
    for name, text in _pairs(query_string):
        if name == "select":
            columns = _parse_select(text)
        elif name == "columns":
            written = _parse_columns(text)
        elif name == "order":
            order = tuple(_parse_order(part) for part in text.split(","))
        elif name in ("limit", "offset"):
            numbers[name] = _parse_number(name, text)
        else:
            filters.append(parse_filter(name, text))
    return RestRequest(
        columns, written, tuple(filters), order, numbers.get("limit"), numbers.get("offset")
    )


def check_headers(accept: str | None, profile: str | None, prefer: str | None) -> None:
    """Raises UnsupportedError for what would change the answer and is not known here."""
    for wanted in ("application/vnd.pgrst", "text/csv"):
        if wanted in (accept or ""):
            raise UnsupportedError(f"Accept: {accept}: only application/json is known")
    if (profile or SCHEMA) != SCHEMA:
        raise UnsupportedError(f"schema {profile}: only {SCHEMA} is served")
    if "resolution=" in (prefer or ""):
        raise UnsupportedError(f"Prefer: {prefer}: upserts are not known")


def check_is_plain(asked: "RestRequest") -> None:
    """Raises UnsupportedError for an order or a page of rows to change."""
    if asked.order or asked.limit is not None or asked.offset is not None:
        raise UnsupportedError("order, limit and offset are for reading")


def wants_representation(prefer: str | None) -> bool:
    """Whether `Prefer` asks for the changed rows (RFC 7240, PostgREST's `return`)."""
    preferences = (prefer or "").replace(" ", "").split(",")
    return "return=representation" in preferences


def _pairs(query_string: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string,
            keep_blank_values=True,
            strict_parsing=bool(query_string),
            errors="strict",
            max_num_fields=PARAMETER_COUNT_MAX,
        )
    except ValueError as error:
        raise QueryStringError(f"the query string cannot be read: {error}") from error


def _parse_select(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")]
    if parts in ([""], ["*"]):
        return ()
    for part in parts:
        if not _COLUMN.fullmatch(part):
            raise QueryStringError(f"select={text}: {part!r} is not the name of a column")
    return tuple(parts)


def _parse_columns(text: str) -> tuple[str, ...]:
    """`a,b` or, as supabase-js writes it, `"a","b"`."""
    if not _QUOTED.fullmatch(text):
        return _parse_select(text) or ()
    return tuple(text[1:-1].split('","'))


def _parse_order(text: str) -> Order:
    column, _, direction = text.partition(".")
    if not _COLUMN.fullmatch(column) or direction not in ("", "asc", "desc"):
        raise QueryStringError(
            f"order={text}: this cannot be read", hint="use column, column.asc or column.desc"
        )
    return Order(column, is_descending=direction == "desc")


def _parse_number(name: str, text: str) -> str:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise QueryStringError(f"{name}={text}: this is not a whole number")
    return text
