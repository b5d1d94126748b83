"""Filters as text, `id=eq.7`, and as values: shared by REST and realtime.

The grammar is PostgREST's, https://docs.postgrest.org/en/stable/references/api/tables_views.html;
of its operators this version knows `eq`.
"""

from msgspec import Struct

from butterbase.sql.errors import ButterbaseError


class InvalidFilterError(ButterbaseError):
    """A filter cannot be read."""

    code = "PGRST100"


class Equals(Struct, frozen=True):
    """`column = value`; as in SQL, NULL on either side never matches."""

    column: str
    value: str
    """Text that Postgres reads as the column's type."""


def parse_filter(column: str, text: str) -> Equals:
    """Read `eq.7` for a column. Raises InvalidFilterError, which names the filter."""
    operator, dot, value = text.partition(".")
    if not dot or not operator:
        raise InvalidFilterError(f"{column}={text}: a filter is an operator, a dot and a value")
    if operator != "eq":
        raise InvalidFilterError(f"{column}={text}: unknown operator {operator}", hint="use eq")
    if not column or "\0" in column or "\0" in value:
        readable = f"{column}={text}".replace("\0", "?")
        raise InvalidFilterError(f"{readable}: a name or value cannot be read")
    return Equals(column, value)
