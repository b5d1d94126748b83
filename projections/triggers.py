"""Projection `triggers`: changes of tables → invocations of functions that wait for a worker.

A change makes one row for each trigger that it matches, once: the rows and the checkpoint are one
transaction, and (trigger, position) is unique besides. What runs them is api/functions/work/.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.changes import (
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    QualifiedName,
    Relation,
    Truncate,
    Update,
)
from butterbase.ingest.lsn import LSN, format_lsn, parse_lsn
from butterbase.ingest.row_changes import RowChange, event_of, image_of, row_change
from butterbase.projections.change_events import EventWriter, ordering_key, touches
from butterbase.projections.row_filters import (
    ColumnType,
    UnfilterableError,
    passing,
    read_columns,
)
from butterbase.sql.change_filters import ChangeFilterError, Term, parse_filter

logger = logging.getLogger(__name__)

TRIGGERS: Final = ("functions", "triggers")
BATCH_COUNT_MAX: Final = 500
"""Changes that are judged, and rows that are written, by one statement."""

Event: TypeAlias = Literal["INSERT", "UPDATE", "DELETE"]

_READ: Final = """
select id, function_id, name, config::text, attempts_max, since::text
from functions.triggers
where kind = 'database' and is_enabled
order by created_at, id
"""
_WRITE: Final = """
insert into functions.invocations
  (function_id, trigger_id, kind, status, lsn, ordinal, key, payload, attempts_max, run_after)
select n.function_id, n.trigger_id, 'database', 'queued', n.lsn::pg_lsn, n.ordinal, n.key,
  n.payload::json, n.attempts_max, now()
from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::int[], %s::text[], %s::text[], %s::int[])
  with ordinality as n
  (function_id, trigger_id, lsn, ordinal, key, payload, attempts_max, place)
-- By now a trigger may be gone of which the log has still to tell that.
join functions.triggers t on t.id = n.trigger_id
order by n.place
on conflict (trigger_id, lsn, ordinal) do nothing
"""
_FAILED: Final = """
update functions.triggers set last_error = %s where id = %s and last_error is distinct from %s
"""
_GAP: Final = "update functions.triggers set gap_at = now() where kind = 'database'"


class DatabaseConfig(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`functions.triggers.config` of a trigger on changes."""

    table: str
    schema: str = "public"
    events: tuple[Event, ...] = ("INSERT", "UPDATE", "DELETE")
    filter: str = ""
    """In the grammar of sql/change_filters.py, about the new row, or the one that is deleted."""
    columns: tuple[str, ...] | None = None
    """Told of a row, all by default. An update that is known to leave them as they are is none."""
    ordered: bool = False
    """Whether changes of one row are worked on one after the other."""

    @property
    def qualified_name(self) -> QualifiedName:
        return self.schema, self.table


class ChangeTrigger(Struct, frozen=True):
    id: UUID
    function_id: UUID
    name: str
    config: DatabaseConfig
    terms: tuple[Term, ...]
    attempts_max: int
    since: LSN


class _Match(Struct, frozen=True):
    """A change that a trigger may be for, with its place in the log."""

    commit: Commit
    ordinal: int
    """Counts all changes of the commit from 1, as positions of realtime do."""
    change: RowChange


class Triggers:
    """See projections/projection.py."""

    name = "triggers"
    # Written by workers too, which need not wait while nothing is made anew.
    tables: Sequence[QualifiedName] = ()

    def __init__(self) -> None:
        self._tables: frozenset[QualifiedName] | None = None
        """Of the triggers as they were read; None: not read yet."""
        self._logged: set[QualifiedName] = set()
        """Of triggers of which the log has told."""
        self._triggers: list[ChangeTrigger] | None = None
        """As they were read. They are read again by who applies a commit that changes them, which
        the log tells before any change that is theirs.
        """
        self._writer = EventWriter()

    def wants(self, commit: Commit) -> bool:
        self._hear(commit)
        if commit.has_ddl:
            self._writer.forget()
        tables = commit.tables
        if self._tables is None:
            # Who has not read its triggers yet may not pass over a change.
            return any(schema != "functions" for schema, _ in tables)
        return TRIGGERS in tables or not (
            tables.isdisjoint(self._tables) and tables.isdisjoint(self._logged)
        )

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        triggers = self._triggers
        if triggers is None or any(TRIGGERS in commit.tables for commit in commits):
            triggers = self._triggers = await self._read(conn)
        by_table: dict[QualifiedName, list[ChangeTrigger]] = {}
        for trigger in triggers:
            by_table.setdefault(trigger.config.qualified_name, []).append(trigger)
        for batch in _batches(commits, frozenset(by_table)):
            by_relation: dict[Relation, list[_Match]] = {}
            for match in batch:
                by_relation.setdefault(match.change.relation, []).append(match)
            made: list[tuple[_Match, ChangeTrigger, str | None, bytes]] = []
            for relation, matches in by_relation.items():
                columns = {}
                asking = by_table[relation.qualified_name]
                if any(trigger.terms or trigger.config.ordered for trigger in asking):
                    columns = await read_columns(conn, relation)
                for trigger in asking:
                    found = await self._matching(conn, trigger, columns, matches)
                    made += await self._events(conn, trigger, columns, found)
            await _write(conn, made)

    async def note_gap(self, conn: AsyncConnection) -> None:
        await conn.execute(_GAP)

    async def resync(self, conn: AsyncConnection) -> None:
        """There is nothing to read: see LogProjection."""

    async def rebuild(self, conn: AsyncConnection) -> None:
        """What was invoked stays so."""

    def _hear(self, commit: Commit) -> None:
        for change in commit.changes_of(TRIGGERS):
            match change:
                case Insert(relation, new) | Update(relation, new, _):
                    image = image_of(Insert(relation, new))
                    if image.get("kind") == "database":
                        with suppress(msgspec.ValidationError):  # told when it is read
                            self._logged.add(_config(image["config"] or "").qualified_name)
                case Delete() | Truncate() | LogicalMessage():
                    pass  # a table too many costs little

    async def _read(self, conn: AsyncConnection) -> list[ChangeTrigger]:
        cursor = await conn.execute(_READ)
        found = []
        for id_, function_id, name, config, attempts_max, since in await cursor.fetchall():
            try:
                read = _config(config)
                terms = parse_filter(read.filter)
            except (ChangeFilterError, msgspec.ValidationError) as error:
                # It was checked when it was made, by another version.
                await _fail(conn, id_, str(error))
                continue
            found.append(
                ChangeTrigger(id_, function_id, name, read, terms, attempts_max, parse_lsn(since))
            )
        self._tables = frozenset(trigger.config.qualified_name for trigger in found)
        return found

    async def _matching(
        self,
        conn: AsyncConnection,
        trigger: ChangeTrigger,
        columns: dict[str, ColumnType],
        matches: Sequence[_Match],
    ) -> list[_Match]:
        config = trigger.config
        asked = [
            match
            for match in matches
            if match.commit.lsn > trigger.since
            and event_of(match.change) in config.events
            and touches(match.change, config.columns)
        ]
        if not trigger.terms or not asked:
            return asked
        try:
            async with conn.transaction():  # a savepoint
                images = [image_of(match.change) for match in asked]
                places = await passing(conn, trigger.terms, columns, images)
        except (UnfilterableError, psycopg.DataError, psycopg.ProgrammingError) as error:
            # A column that is gone or of another type by now. The log is not held up by it.
            await _fail(conn, trigger.id, str(error).splitlines()[0])
            return []
        return [match for place, match in enumerate(asked) if place in places]

    async def _events(
        self,
        conn: AsyncConnection,
        trigger: ChangeTrigger,
        columns: dict[str, ColumnType],
        matches: Sequence[_Match],
    ) -> list[tuple[_Match, ChangeTrigger, str | None, bytes]]:
        if not matches:
            return []
        config = trigger.config
        primary = [name for name, column in columns.items() if column.is_primary]
        layout = await self._writer.layout(conn, matches[0].change.relation, config.columns)
        made = []
        for match in matches:
            key = ordering_key(match.change, primary) if config.ordered else None
            position = f"{format_lsn(match.commit.lsn)}/{match.ordinal}"
            payload = layout.encode(match.change, at=match.commit.at, position=position)
            made.append((match, trigger, key, payload))
        return made


def _batches(commits: Sequence[Commit], tables: frozenset[QualifiedName]) -> Iterator[list[_Match]]:
    """Changes of the tables, in order."""
    batch: list[_Match] = []
    for commit in commits:
        if commit.tables.isdisjoint(tables):
            continue
        for ordinal, change in enumerate(commit.changes, 1):
            row = row_change(change)
            if row is None or row.relation.qualified_name not in tables:
                continue
            batch.append(_Match(commit, ordinal, row))
            if len(batch) == BATCH_COUNT_MAX:
                yield batch
                batch = []
    if batch:
        yield batch


async def _write(
    conn: AsyncConnection, made: list[tuple[_Match, ChangeTrigger, str | None, bytes]]
) -> None:
    if not made:
        return
    made.sort(key=lambda one: (one[0].commit.lsn, one[0].ordinal))
    await conn.execute(
        _WRITE,
        [
            [trigger.function_id for _, trigger, _, _ in made],
            [trigger.id for _, trigger, _, _ in made],
            [format_lsn(match.commit.lsn) for match, _, _, _ in made],
            [match.ordinal for match, _, _, _ in made],
            [key for _, _, key, _ in made],
            [payload.decode() for _, _, _, payload in made],
            [trigger.attempts_max for _, trigger, _, _ in made],
        ],
    )


async def _fail(conn: AsyncConnection, trigger_id: UUID, error: str) -> None:
    await conn.execute(_FAILED, [error, trigger_id, error])


def _config(text: str) -> DatabaseConfig:
    return msgspec.json.decode(text, type=DatabaseConfig)
