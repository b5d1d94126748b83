"""Which rows the claims may see: the row in the log is judged, not the table's.

What is compiled answers by itself; of the rest Postgres is asked. A statement makes rows out of the
images and puts the table's policies over them, under the table's own name; the policies' texts
apply unchanged. What a policy needs and an image lacks makes the row invisible, and so does an
error in a policy, or one that takes longer than `statement_timeout`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct
from psycopg.sql import SQL, Composable, Identifier

from butterbase.realtime.changes.access import QUERY_CANCELED, Access, Catalog
from butterbase.realtime.changes.comparing import cast
from butterbase.realtime.changes.compiled.errors import UnanswerableError
from butterbase.realtime.changes.compiled.policies import Visibility, gate_of
from butterbase.realtime.changes.compiled.predicate import Predicate
from butterbase.realtime.changes.matching import Image
from butterbase.realtime.changes.pauses import Pauses
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

_WARNED_COUNT_MAX = 1000


def needs_whole_row(access: Access) -> bool:
    # A reference to the whole row, always written with a star, is no dependency on a column. A
    # star elsewhere in an expression only makes the answer stricter.
    return any(".*" in policy.expression for policy in access.policies)


@lru_cache(maxsize=1024)
def required_columns(access: Access) -> tuple[str, ...]:
    """The columns that the policies must be given, in the table's order."""
    if needs_whole_row(access):
        return tuple(column.name for column in access.columns)
    named = {name for policy in access.policies for name in policy.columns}
    return tuple(column.name for column in access.columns if column.name in named)


@lru_cache(maxsize=1024)
def judging_statement(access: Access) -> bytes:
    """The statement that answers the ordinals (from 1) of the visible rows of `$1`.

    `$1` is a JSON array of arrays of text, in the order of `required_columns`.
    """
    permissive = [_condition(p.expression) for p in access.policies if p.is_permissive]
    restrictive = [_condition(p.expression) for p in access.policies if not p.is_permissive]
    statement = SQL(
        "select /* {fingerprint} */ butterbase_ordinal::text from json_array_elements($1::json)"
        " with ordinality as butterbase_rows (butterbase_row, butterbase_ordinal)"
        " cross join lateral {row} as {table} where {conditions}"
    ).format(
        fingerprint=_trusted(access.fingerprint),
        row=_row(access),
        table=Identifier(access.table),
        conditions=SQL(" and ").join(
            [*restrictive, SQL("({})").format(SQL(" or ").join(permissive))]
        ),
    )
    return statement.as_bytes(None)


def _row(access: Access) -> Composable:
    """The row that is judged, with what the policies need and nothing else.

    A column that is not needed must not be able to fail the row, as null does in a domain that is
    not null.
    """
    required = set(required_columns(access))
    values = [
        cast(SQL("(butterbase_row ->> {})").format(ordinal), column)
        for ordinal, column in enumerate(c for c in access.columns if c.name in required)
    ]
    if needs_whole_row(access):
        # `unnest` gives the row the table's own type, which `auth.can_see(documents)` asks for.
        return SQL("unnest(array[row({})::{}])").format(
            SQL(", ").join(values), Identifier(access.schema, access.table)
        )
    named = [
        SQL("{} as {}").format(value, Identifier(column))
        for value, column in zip(values, required_columns(access), strict=True)
    ]
    return SQL("(select {})").format(SQL(", ").join(named))


def _condition(expression: str) -> Composable:
    return SQL("({})").format(_trusted(expression))


def _trusted(text: str) -> Composable:
    return SQL(text)  # Postgres's own deparsing of its catalog


def _evaluated(
    predicate: Predicate, claims: Claims, images: Sequence[Image], indexes: Sequence[int]
) -> tuple[frozenset[int], list[int]]:
    """The images that are visible, and those that Postgres must be asked about."""
    visible, unknown = [], []
    try:
        reads = predicate.read_claims(claims.json)
    except UnanswerableError:
        return frozenset(), list(indexes)
    for index in indexes:
        try:
            if predicate.evaluate(images[index], reads) is True:
                visible.append(index)
        except UnanswerableError:
            unknown.append(index)
    return frozenset(visible), unknown


class Verdict(Struct, frozen=True):
    access: Access | None
    """What the role may read of the table; None when that is gone."""
    visible: frozenset[int]
    """The indexes of the images that the claims may see."""


NOTHING = Verdict(None, frozenset())


class Policies:
    """Judges images."""

    def __init__(
        self,
        executor: Executor,
        catalog: Catalog,
        *,
        pause_s: float,
        now_s: Callable[[], float] = time.monotonic,
        is_compiling: bool = True,
    ) -> None:
        """A table's policies that took too long for some claims hide its rows for `pause_s`.

        With `is_compiling` false Postgres is asked about everything.
        """
        self._executor = executor
        self._catalog = catalog
        self._is_compiling = is_compiling
        self._paused = Pauses[tuple[int, Claims]](pause_s, now_s=now_s)
        self._warned: set[tuple[str, str, str]] = set()

    async def access(self, relation_oid: int, role: str) -> Access | None:
        """None when the table is gone. Raises DatabaseUnavailableError."""
        return await self._catalog.access(relation_oid, role)

    async def judge(self, relation_oid: int, claims: Claims, images: Sequence[Image]) -> Verdict:
        """Which of the images the caller may see. Raises DatabaseUnavailableError."""
        if (relation_oid, claims) in self._paused:
            return NOTHING
        try:
            return await self._judge_known(relation_oid, claims, images)
        except DatabaseError as error:
            if error.sqlstate != QUERY_CANCELED:
                raise
            self._paused.add((relation_oid, claims))
            return NOTHING

    async def _judge_known(
        self, relation_oid: int, claims: Claims, images: Sequence[Image]
    ) -> Verdict:
        access = await self._catalog.access(relation_oid, claims.role)
        if access is None:
            return NOTHING
        try:
            return Verdict(access, await self._judge(access, claims, images))
        except DatabaseError as error:
            if error.sqlstate == QUERY_CANCELED:
                raise
        # The table may have changed since its policies were read; the log will tell later.
        access = await self._catalog.read(relation_oid, claims.role)
        if access is None:
            return NOTHING
        return Verdict(access, await self._judge_each(access, claims, images))

    async def _judge_each(
        self, access: Access, claims: Claims, images: Sequence[Image]
    ) -> frozenset[int]:
        """As `_judge`; rows on which a policy fails are not visible and cost no other row."""
        try:
            return await self._judge(access, claims, images)
        except DatabaseError as error:
            if error.sqlstate == QUERY_CANCELED:
                raise
            if len(images) == 1:
                self._warn(access, error)
                return frozenset()
            middle = len(images) // 2
            first = await self._judge_each(access, claims, images[:middle])
            second = await self._judge_each(access, claims, images[middle:])
            return first | {middle + index for index in second}

    async def _judge(
        self, access: Access, claims: Claims, images: Sequence[Image]
    ) -> frozenset[int]:
        gate = gate_of(access)
        if gate.visibility is Visibility.NONE:
            return frozenset()
        if gate.visibility is Visibility.ALL:
            return frozenset(range(len(images)))
        required = required_columns(access)
        complete = [i for i, image in enumerate(images) if all(c in image for c in required)]
        visible: frozenset[int] = frozenset()
        if gate.predicate is not None and self._is_compiling:
            visible, complete = _evaluated(gate.predicate, claims, images, complete)
        if not complete:
            return visible
        return visible | await self._ask(access, claims, images, complete)

    async def _ask(
        self, access: Access, claims: Claims, images: Sequence[Image], indexes: Sequence[int]
    ) -> frozenset[int]:
        required = required_columns(access)
        rows = [[images[index][column] for column in required] for index in indexes]
        statement = Statement(judging_statement(access), (msgspec.json.encode(rows),))
        try:
            (result,) = await self._executor.run_as(claims, statement, read_only=True)
        except DatabaseError as error:
            if error.sqlstate == QUERY_CANCELED:
                self._warn(access, error)
            raise
        return frozenset(indexes[int(ordinal) - 1] for (ordinal,) in result.rows() if ordinal)

    def _warn(self, access: Access, error: DatabaseError) -> None:
        key = (access.schema, access.table, error.sqlstate)
        if key not in self._warned and len(self._warned) < _WARNED_COUNT_MAX:
            self._warned.add(key)
            logger.warning(
                "a policy of %s.%s fails, and hides rows from subscribers: %s",
                access.schema,
                access.table,
                error.message,
            )
