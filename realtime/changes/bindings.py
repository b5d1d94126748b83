"""A join's requests → bindings: Postgres says, as the caller, what there is and may be read.

So that changes need no conversion, values are brought into the form that the log has; and what
would fail on every change (no such operator, no valid pattern) is refused here.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from psycopg.sql import SQL

from butterbase.realtime.changes.access import Access, AccessColumn, Catalog
from butterbase.realtime.changes.comparing import LIKE_THE_LOG, compared, pattern_type
from butterbase.realtime.changes.filters import (
    ENDS_WITH_ESCAPE,
    PATTERNS,
    Operator,
    Term,
    ends_with_escape,
)
from butterbase.realtime.changes.matching import ALL, Binding
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.realtime.errors import InvalidSubscriptionError
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Result, Statement


class Bindings(Struct, frozen=True):
    made: tuple[Binding, ...]
    problems: tuple[str, ...]
    """A sentence for each request that cannot be had."""


class _RefusedError(Exception):
    """The reason, as its text."""


async def bind(
    executor: Executor, catalog: Catalog, claims: Claims, requests: Sequence[ChangeRequest]
) -> Bindings:
    """Raises DatabaseUnavailableError."""
    made, problems = [], []
    for request in requests:
        try:
            made.append(await _bind(executor, catalog, claims, request))
        except InvalidSubscriptionError as error:
            problems.append(
                f"Unable to subscribe to changes with given parameters. {error.message}"
            )
    return Bindings(tuple(made), tuple(problems))


async def _bind(
    executor: Executor, catalog: Catalog, claims: Claims, request: ChangeRequest
) -> Binding:
    if ALL in (request.schema, request.table):
        return Binding(request.id, request.event, request.schema, request.table)
    oid = await catalog.find(request.schema, request.table)
    access = None if oid is None else await catalog.access(oid, claims.role)
    if access is None or not access.readable:
        raise InvalidSubscriptionError(
            f"Please check Realtime is enabled for the given connect parameters: {request}"
        )
    try:
        for name in request.select or ():
            if name not in access.readable:
                raise _RefusedError(f"invalid column for select {name}")
        terms = {await _bound(executor, claims, access, term) for term in request.filter}
    except _RefusedError as error:
        raise InvalidSubscriptionError(
            f"An exception happened so please check your connect parameters: {request}."
            f" Exception: {error}"
        ) from error
    return Binding(
        request.id,
        request.event,
        request.schema,
        request.table,
        tuple(sorted(terms)),
        request.select,
    )


async def _bound(executor: Executor, claims: Claims, access: Access, term: Term) -> Term:
    """The term with values as the log writes them. Raises _RefusedError."""
    column = access.readable.get(term.column)
    if column is None:
        raise _RefusedError(f"invalid column for filter {term.column}")
    is_value = term.operator not in PATTERNS and term.operator != "is"
    statements = (
        [_value_statement(access, column, term)]
        if is_value
        else _pattern_statements(access, column, term)
    )
    try:
        results = await executor.run_as(claims, *LIKE_THE_LOG, *statements, read_only=True)
    except DatabaseError as error:
        raise _RefusedError(f"{term}: {error.message}") from error
    values = term.values
    if term.operator == "like" and _is_open_ended(column, results[-1]):
        raise _RefusedError(f"{term}: {ENDS_WITH_ESCAPE}")
    if is_value:
        values = tuple(text.decode() for text, _ in results[-1].rows() if text is not None)
        if len(values) < len(term.values):
            raise _RefusedError(f"{term}: a value is NULL")
    return replace(term, values=values, type_oid=column.type_oid)


def _value_statement(access: Access, column: AccessColumn, term: Term) -> Statement:
    """Writes the values as the log does, where a cast to text has ideas of its own (boolean, char).

    They are compared as well, for types that know no equality, or no order.
    """
    operator: Operator = "eq" if term.operator == "in" else term.operator
    value = SQL("given.value")
    text = (
        SQL(
            "select /* {fingerprint} */ format('%s', {value}::{type}), {comparison}"
            " from json_array_elements_text($1::json) with ordinality as given (value, place)"
            " order by given.place"
        )
        .format(
            fingerprint=SQL(access.fingerprint),
            value=value,
            type=SQL(column.sql_type),
            comparison=compared(column, operator, value, value),
        )
        .as_bytes(None)
    )
    return Statement(text, (msgspec.json.encode(term.values),))


def _pattern_statements(access: Access, column: AccessColumn, term: Term) -> list[Statement]:
    """They fail where the column's type has no such operator, or the pattern is none."""
    (value,) = term.values
    word = value if term.operator == "is" else ""
    fingerprint = SQL(" /* {} */").format(SQL(access.fingerprint))
    # Other collations than deterministic ones may have no patterns, which NULL would not tell.
    text = SQL("null" if column.is_deterministic else "''")
    comparison = compared(column, term.operator, text, text, word)
    statements = [Statement((SQL("select ") + comparison + fingerprint).as_bytes(None))]
    if term.operator in ("match", "imatch"):
        statements.append(Statement(b"select '' ~ $1::text", (value.encode(),)))
    elif term.operator in PATTERNS:
        read = SQL("select $1::{}::text").format(SQL(pattern_type(column))).as_bytes(None)
        statements.append(Statement(read, (value.encode(),)))
    return statements


def _is_open_ended(column: AccessColumn, pattern: Result) -> bool:
    """Whether a pattern of bytes, which are only now known, would fail on some values."""
    text = pattern.value()
    if pattern_type(column) != "bytea" or text is None:
        return False
    return ends_with_escape(bytes.fromhex(text.decode().removeprefix("\\x")).decode("latin-1"))
