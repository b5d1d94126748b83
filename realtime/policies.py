"""Which rows the claims may see, asked of Postgres: the row in the log is judged, not the table's.

A statement makes rows of the table's type out of the images and puts the table's policies over
them, under the table's own name; the policies' texts apply unchanged. What a policy needs and an
image lacks makes the row invisible, and so does an error in a policy.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct
from psycopg.sql import SQL, Composable, Identifier

from butterbase.realtime.access import Access, Catalog
from butterbase.realtime.matching import Image
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

_WARNED_COUNT_MAX = 1000


@lru_cache(maxsize=1024)
def required_columns(access: Access) -> tuple[str, ...]:
    """The columns that the policies must be given, in the table's order."""
    # A reference to the whole row, always written with a star, is no dependency on a column. A
    # star elsewhere in an expression only makes the answer stricter.
    if any(".*" in policy.expression for policy in access.policies):
        return tuple(column.name for column in access.columns)
    named = {name for policy in access.policies for name in policy.columns}
    return tuple(column.name for column in access.columns if column.name in named)


@lru_cache(maxsize=1024)
def judging_statement(access: Access) -> bytes:
    """The statement that answers the ordinals (from 1) of the visible rows of `$1`.

    `$1` is a JSON array of arrays of text, in the order of `required_columns`.
    """
    required = required_columns(access)
    values = [
        SQL("(butterbase_row ->> {})::{}").format(required.index(c.name), _trusted(c.sql_type))
        if c.name in required
        else SQL("null")
        for c in access.columns
    ]
    permissive = [_condition(p.expression) for p in access.policies if p.is_permissive]
    restrictive = [_condition(p.expression) for p in access.policies if not p.is_permissive]
    # `unnest` gives the rows the table's own type, which `auth.can_see(documents)` asks for.
    statement = SQL(
        "select /* {fingerprint} */ butterbase_ordinal::text from json_array_elements($1::json)"
        " with ordinality as butterbase_rows (butterbase_row, butterbase_ordinal)"
        " cross join lateral unnest(array[row({values})::{qualified}]) as {table}"
        " where {conditions}"
    ).format(
        fingerprint=_trusted(access.fingerprint),
        values=SQL(", ").join(values),
        qualified=Identifier(access.schema, access.table),
        table=Identifier(access.table),
        conditions=SQL(" and ").join(
            [SQL("({})").format(SQL(" or ").join(permissive)), *restrictive]
        ),
    )
    return statement.as_bytes(None)


def _condition(expression: str) -> Composable:
    return SQL("({})").format(_trusted(expression))


def _trusted(text: str) -> Composable:
    return SQL(text)  # Postgres's own deparsing of its catalog


class Verdict(Struct, frozen=True):
    access: Access | None
    """What the role may read of the table; None when that is gone."""
    visible: frozenset[int]
    """The indexes of the images that the claims may see."""


NOTHING = Verdict(None, frozenset())


class Policies:
    """Judges images. A compiled predicate would answer before `_ask`, behind the same `judge`."""

    def __init__(self, executor: Executor, catalog: Catalog) -> None:
        self._executor = executor
        self._catalog = catalog
        self._warned: set[tuple[str, str, str]] = set()

    async def judge(self, relation_oid: int, claims: Claims, images: Sequence[Image]) -> Verdict:
        """Which of the images the caller may see. Raises DatabaseUnavailableError."""
        access = await self._catalog.access(relation_oid, claims.role)
        if access is None:
            return NOTHING
        try:
            return Verdict(access, await self._judge(access, claims, images))
        except DatabaseError:
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
        if not access.readable:
            return frozenset()
        if not access.is_row_security_active:
            return frozenset(range(len(images)))
        if not any(policy.is_permissive for policy in access.policies):
            return frozenset()
        required = required_columns(access)
        complete = [i for i, image in enumerate(images) if all(c in image for c in required)]
        if not complete:
            return frozenset()
        return await self._ask(access, claims, images, complete)

    async def _ask(
        self, access: Access, claims: Claims, images: Sequence[Image], indexes: Sequence[int]
    ) -> frozenset[int]:
        required = required_columns(access)
        rows = [[images[index][column] for column in required] for index in indexes]
        (result,) = await self._executor.run_as(
            claims,
            Statement(judging_statement(access), (msgspec.json.encode(rows),)),
            read_only=True,
        )
        return frozenset(indexes[int(ordinal) - 1] for (ordinal,) in result.rows() if ordinal)

    def _warn(self, access: Access, error: DatabaseError) -> None:
        key = (access.schema, access.table, error.sqlstate)
        if key not in self._warned and len(self._warned) < _WARNED_COUNT_MAX:
            self._warned.add(key)
            logger.warning(
                "a policy of %s.%s fails, its rows reach nobody: %s",
                access.schema,
                access.table,
                error.message,
            )
