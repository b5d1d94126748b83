"""A join's requests → bindings: Postgres says, as the caller, what there is and may be read."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from psycopg.sql import SQL

from butterbase.ingest.stream import TEXT_SETTINGS
from butterbase.realtime.access import Access, Catalog
from butterbase.realtime.errors import InvalidSubscriptionError
from butterbase.realtime.matching import ALL, Binding, Filter
from butterbase.realtime.subscriptions import ChangeRequest, format_filter
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.filters import Equals, OneOf
from butterbase.sql.pipeline import Executor, Statement

# The log's text settings, since a filter is compared with the log's text.
_LIKE_THE_LOG: Final = tuple(
    Statement(b"select set_config($1, $2, true)", (name.encode(), value.encode()))
    for name, value in TEXT_SETTINGS.items()
)


class Bindings(Struct, frozen=True):
    made: tuple[Binding, ...]
    problems: tuple[str, ...]
    """A sentence for each request that cannot be had."""


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
                f"Unable to subscribe to changes with given parameters. {error.message}: {request}"
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
            f"Table {request.table} does not exist, or {claims.role} may not read it"
        )
    condition = None
    if request.filter is not None:
        condition = await _canonical(executor, claims, access, request.filter)
    return Binding(request.id, request.event, request.schema, request.table, condition)


async def _canonical(
    executor: Executor, claims: Claims, access: Access, wanted: Equals | OneOf
) -> Filter:
    column = access.readable.get(wanted.column)
    if column is None:
        raise InvalidSubscriptionError(
            f"Column {wanted.column} does not exist, or {claims.role} may not read it"
        )
    values = (wanted.value,) if isinstance(wanted, Equals) else wanted.values
    # `format` writes as the log does, where a cast to text has ideas of its own (boolean, char).
    # The comparison is there for types that know no equality.
    parameter = SQL("$1::{}").format(SQL(column.sql_type))
    statement = (
        SQL("select /* {1} */ format('%s', {0}), {0} = {0}")
        .format(parameter, SQL(access.fingerprint))
        .as_bytes(None)
    )
    try:
        results = await executor.run_as(
            claims,
            *_LIKE_THE_LOG,
            *(Statement(statement, (value.encode(),)) for value in values),
            read_only=True,
        )
    except DatabaseError as error:
        raise InvalidSubscriptionError(
            f"Filter {format_filter(wanted)}: {error.message}"
        ) from error
    texts = [result.value() for result in results[len(_LIKE_THE_LOG) :]]
    first, *more = [text.decode() for text in texts if text is not None]
    return Filter(wanted.column, first, tuple(more))
