"""What an executor runs, and what comes of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from butterbase.sql.errors import DatabaseError
from butterbase.sql.spool import Spool

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

Parameters: TypeAlias = Sequence[bytes | None]
"""In Postgres's text format."""

Value: TypeAlias = str | bool | int | float | bytes | None
"""What a parameter is made from; bytes are in the text format already, as JSON and `bytea` are."""

Isolation: TypeAlias = Literal[
    "read uncommitted", "read committed", "repeatable read", "serializable"
]

PIECE_BYTES = 128 * 1024
"""Of the body of a chunked statement, a row."""


class Statement(Struct, frozen=True):
    """SQL text with `$1` parameters in text format; equal texts, unless they are long, are prepared
    once a connection."""

    text: bytes
    parameters: Parameters = ()
    is_chunked: bool = False
    """Whether the rows are pieces of one body, as `in_pieces` makes them."""

    @classmethod
    def of(cls, text: bytes, *values: Value) -> "Statement":
        """With a parameter for each value."""
        return cls(text, tuple(map(_parameter, values)))


class Result:
    """The rows of one statement, in Postgres's text format.

    Of a chunked statement the first row alone, with the whole body beside it.
    """

    __slots__ = ("_result", "body")

    def __init__(self, result: "PGresult", body: bytes | Spool = b"") -> None:
        self._result = result
        self.body = body
        """Of a chunked statement."""

    @property
    def row_count(self) -> int:
        return self._result.ntuples

    def value(self, row: int = 0, column: int = 0) -> bytes | None:
        return self._result.get_value(row, column)

    def rows(self) -> list[tuple[bytes | None, ...]]:
        result = self._result
        columns = range(result.nfields)
        return [tuple(result.get_value(r, c) for c in columns) for r in range(result.ntuples)]


def bytea(value: bytes) -> bytes:
    """In the text format."""
    return b"\\x" + value.hex().encode()


def _parameter(value: Value) -> bytes | None:
    match value:
        case None | bytes():
            return value
        case bool():
            return b"t" if value else b"f"
        case str():
            return value.encode()
        case _:
            return repr(value).encode()


Check: TypeAlias = Callable[[list[Result]], None]
"""Shown the results before they are committed; what it raises undoes them."""


def in_pieces(query: bytes, *, columns: Sequence[bytes], body: bytes, ctes: bytes = b"") -> bytes:
    """The text of a chunked statement: the query's one row, once for each piece of its body.

    `columns` are names of the query's columns of type text; `body` is that of its column of type
    bytea, as of `convert_to(coalesce(json_agg(r), '[]')::text, 'UTF8')`. The results of a chunked
    statement are binary, which for text is the text itself. `ctes` is the query's WITH clause,
    since one that changes rows may not stand in a subquery.
    """
    # The select list's set-returning function makes a row as it is asked for; a join with it would
    # first write the body to a tuplestore. Cutting bytes needs no counting of characters. Without
    # the offset the planner may merge the query into ours, and compute the body for each piece.
    heads = b"".join(b"b.%b, " % name for name in columns)
    starts = b"pg_catalog.generate_series(1, greatest(pg_catalog.octet_length(b.%b), 1), %d)"
    cut = b"pg_catalog.substr(b.%b, " + starts + b", %d)"
    pieces = cut % (body, body, PIECE_BYTES, PIECE_BYTES)
    return b"%bselect %b%b from (select * from (%b) a offset 0) b" % (ctes, heads, pieces, query)


def refuse_nul(statement: Statement) -> None:
    """libpq takes text up to the first NUL; Postgres text cannot hold one anyway.

    Raises DatabaseError.
    """
    has_nul = b"\0" in statement.text
    for parameter in statement.parameters:
        has_nul = has_nul or (parameter is not None and b"\0" in parameter)
    if has_nul:
        raise DatabaseError("22021", "invalid byte sequence for encoding: 0x00")
