"""What a role may read of a table: privileges, columns and policies, as the catalog has them.

Read as the role itself, so that Postgres decides what applies to it, and kept until DDL is seen in
the log. https://www.postgresql.org/docs/current/ddl-rowsecurity.html
"""

import asyncio
import time
from collections.abc import Callable
from functools import cached_property
from typing import Final

import msgspec
from msgspec import Struct

from butterbase.ingest.snapshots import parse_snapshot
from butterbase.ingest.values import Type, types_query
from butterbase.sql.claims import claims_for_role
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

QUERY_CANCELED: Final = "57014"
"""The SQLSTATE of a statement that ran into `statement_timeout`."""


class AccessColumn(Struct, frozen=True):
    name: str
    type: str
    """pg_type.typname; `_int4` for an array."""
    sql_type: str
    """As SQL, without a modifier: a cast must neither cut nor round."""
    is_readable: bool
    is_primary: bool
    collation: str | None = None
    """As SQL, where it is not the database's: a cast from text would have that one, whatever the
    collation of the type.
    """
    type_oid: int = 0
    type_kind: str = ""
    """pg_type.typtype."""
    is_deterministic: bool = False
    """Whether equal text is the same text, under the column's collation."""


class Function(Struct, frozen=True):
    """A function that a policy calls, by what defines it."""

    schema: str
    name: str
    source: str
    language: str
    result: str
    argument_count: int
    volatility: str
    is_security_definer: bool
    has_settings: bool
    is_callable: bool
    """By the role that selects."""


class Policy(Struct, frozen=True):
    """A policy that applies when the role selects."""

    is_permissive: bool
    expression: str
    """SQL with the table's columns unqualified, or qualified by the table's bare name."""
    columns: tuple[str, ...]
    """The table's columns it names. A reference to the whole row is not among them."""
    functions: tuple[Function, ...] = ()
    """Those that are not Postgres's own."""
    is_self_contained: bool = False
    """Whether the functions and the table's columns are all that it names beside what is
    Postgres's own: no other table, type, operator or collation.
    """


class Access(Struct, frozen=True, dict=True):
    """One role's access to one table."""

    fingerprint: str
    """The oids of the table, its columns' types and its policies, as digits and commas.

    Statements made from an Access carry it: an equal text prepared before one of these was dropped
    and made anew would still mean the old one, which Postgres notices for tables, not for types.
    """
    schema: str
    table: str
    is_row_security_active: bool
    """False also for a role that bypasses row-level security."""
    columns: tuple[AccessColumn, ...]
    policies: tuple[Policy, ...]
    """In the order in which Postgres looks at them, which tells where one fails: the restrictive
    ones by name, then the permissive ones from the last name to the first.
    """
    types: tuple[Type, ...] = ()
    """Those that the columns' types are made of, and these."""

    @cached_property
    def readable(self) -> dict[str, AccessColumn]:
        return {column.name: column for column in self.columns if column.is_readable}

    @cached_property
    def primary_key(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns if column.is_primary)


_DECODER: Final = msgspec.json.Decoder(Access)

# Zero rows: there is no such table (any more).
_ACCESS: Final = """
select json_build_object(
  'fingerprint', concat_ws(',', c.oid,
    (select string_agg(a.atttypid::text, ',' order by a.attnum)
     from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select string_agg(p.oid::text, ',' order by p.oid)
     from pg_policy p where p.polrelid = c.oid)),
  'schema', n.nspname,
  'table', c.relname,
  'is_row_security_active', row_security_active(c.oid),
  'columns', (
    select coalesce(json_agg(json_build_object(
      'name', a.attname,
      'type', t.typname,
      'sql_type', format_type(a.atttypid, -1),
      'is_readable', has_schema_privilege(n.oid, 'usage')
        and has_column_privilege(c.oid, a.attnum, 'select'),
      'is_primary', coalesce(a.attnum = any (i.indkey), false),
      'collation', case when a.attcollation not in (0, '"default"'::regcollation)
        then a.attcollation::regcollation::text end,
      'type_oid', t.oid::int8,
      'type_kind', t.typtype,
      'is_deterministic', coalesce(
        (select l.collisdeterministic from pg_collation l where l.oid = a.attcollation), true)
    ) order by a.attnum), '[]')
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    left join pg_index i on i.indrelid = c.oid and i.indisprimary
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'policies', (
    select coalesce(json_agg(json_build_object(
      'is_permissive', p.polpermissive,
      'expression', pg_get_expr(p.polqual, p.polrelid),
      'columns', (
        select coalesce(json_agg(distinct a.attname), '[]')
        from pg_depend d
        join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.classid = 'pg_policy'::regclass and d.objid = p.oid
          and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
          and d.refobjsubid <> 0),
      'functions', (
        select coalesce(json_agg(distinct jsonb_build_object(
          'schema', f.pronamespace::regnamespace::text,
          'name', f.proname,
          'source', f.prosrc,
          'language', l.lanname,
          'result', f.prorettype::regtype::text,
          'argument_count', f.pronargs,
          'volatility', f.provolatile,
          'is_security_definer', f.prosecdef,
          'has_settings', f.proconfig is not null,
          'is_callable', has_function_privilege(f.oid, 'execute'))), '[]')
        from pg_depend d
        join pg_proc f on f.oid = d.refobjid
        join pg_language l on l.oid = f.prolang
        where d.classid = 'pg_policy'::regclass and d.objid = p.oid
          and d.refclassid = 'pg_proc'::regclass),
      'is_self_contained', not exists (
        select from pg_depend d
        where d.classid = 'pg_policy'::regclass and d.objid = p.oid
          and not (d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)
          and d.refclassid <> 'pg_proc'::regclass)
    ) order by p.polpermissive, case when not p.polpermissive then p.polname end,
      p.polname desc), '[]')
    from pg_policy p
    where p.polrelid = c.oid and p.polcmd in ('r', '*') and p.polqual is not null
      and exists (
        select from unnest(p.polroles) r (oid) where r.oid = 0 or pg_has_role(r.oid, 'usage'))),
  'types', (types)
)::text
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::oid
"""
_TYPE_OIDS: Final = """array(
  select a.atttypid from pg_attribute a
  where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped)
"""
_STATEMENT: Final = _ACCESS.replace("(types)", f"({types_query(_TYPE_OIDS)})").encode()

# Zero rows: there is no such table.
_FIND: Final = b"""
select c.oid::text
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
"""


# A transaction that is visible may not have told the other sessions yet to forget what they keep of
# the catalog. It has when it lets go of its id.
_ENDED: Final = b"""
select pg_current_snapshot()::text, exists (
  select from pg_locks
  where locktype = 'transactionid' and transactionid::text::bigint = any ($1::bigint[]))::text
"""
_PAUSE_S: Final = 0.005


class Catalog:
    """Accesses, kept by table and role. What they raise is DatabaseUnavailableError."""

    def __init__(
        self,
        executor: Executor,
        *,
        age_s_max: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._age_s_max = age_s_max
        self._now_s = now_s
        self._kept: dict[tuple[int, str], tuple[float, Access | None]] = {}
        self._generation = 0
        self._announced: set[int] = set()
        """Transactions with DDL that Postgres may not show yet."""

    async def access(self, relation_oid: int, role: str) -> Access | None:
        """None when the table is gone."""
        kept = self._kept.get((relation_oid, role))
        if kept is not None and self._now_s() - kept[0] < self._age_s_max:
            return kept[1]
        return await self.read(relation_oid, role)

    async def read(self, relation_oid: int, role: str) -> Access | None:
        """As `access`, but past what is kept."""
        await self._wait_for_announced()
        generation, read_at_s = self._generation, self._now_s()
        try:
            (result,) = await self._executor.run_as(
                claims_for_role(role),
                Statement(_STATEMENT, (str(relation_oid).encode(),)),
                read_only=True,
            )
        except DatabaseError as error:
            if error.sqlstate != QUERY_CANCELED:
                raise
            # DDL that is not committed holds the table; what it comes to is known after it.
            raise DatabaseUnavailableError(f"the policies cannot be read: {error}") from error
        text = result.value() if result.row_count else None
        access = None if text is None else _DECODER.decode(text)
        # DDL that was seen meanwhile may be newer than what was read.
        if generation == self._generation:
            self._kept[relation_oid, role] = (read_at_s, access)
        return access

    async def find(self, schema: str, table: str) -> int | None:
        """The table's oid."""
        await self._wait_for_announced()
        (result,) = await self._executor.run(Statement(_FIND, (schema.encode(), table.encode())))
        oid = result.value() if result.row_count else None
        return None if oid is None else int(oid)

    def forget(self) -> None:
        """Drop everything that was read before."""
        self._generation += 1
        self._kept.clear()

    def announce(self, xid: int) -> None:
        """The log has DDL of that transaction: what is read from now on is not older."""
        self._announced.add(xid)

    async def _wait_for_announced(self) -> None:
        """The log tells a commit before it is visible, with synchronous replication long before:
        what was read until then would be what it was before the DDL, and be kept.
        """
        while xids := list(self._announced):
            array = f"{{{','.join(map(str, xids))}}}".encode()
            (result,) = await self._executor.run(Statement(_ENDED, (array,)))
            snapshot, is_under_way = result.rows()[0]
            assert snapshot is not None
            if is_under_way != b"true":
                seen = parse_snapshot(snapshot.decode())
                self._announced.difference_update(xid for xid in xids if seen.sees(xid))
            if not self._announced.isdisjoint(xids):
                await asyncio.sleep(_PAUSE_S)
