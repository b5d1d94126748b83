"""Triggers as they are asked for → as they are kept, once it is known that they can work."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from psycopg import sql

from butterbase.api.functions.errors import InvalidTriggerError
from butterbase.api.functions.model import (
    ATTEMPTS,
    AnyTrigger,
    CronTrigger,
    DatabaseTrigger,
    QueueTrigger,
)
from butterbase.api.functions.work.schedule import parse_schedule
from butterbase.ingest.changes import QualifiedName
from butterbase.projections.change_events import TOLD
from butterbase.projections.row_filters import (
    ColumnType,
    UnfilterableError,
    condition,
    values_of,
)
from butterbase.sql.catalog import load_queries
from butterbase.sql.change_filters import ChangeFilterError, Term, parse_filter
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

QUERIES: Final = load_queries("functions")

OWN_TABLES: Final[frozenset[QualifiedName]] = frozenset({("auth", "users"), ("storage", "objects")})
"""Of schemas that are not the developer's."""

PAYLOAD_BYTES_MAX: Final = 256 * 1024
"""As much as a message has."""

_UNNAMED: Final = re.compile(r"[^A-Za-z0-9_-]+")


class KeptTrigger(Struct, frozen=True):
    """A row to be."""

    name: str
    kind: str
    is_enabled: bool
    config: Any
    attempts_max: int


class Triggers:
    """What checks triggers against the app's database."""

    def __init__(self, executor: Executor, schemas: Collection[str]) -> None:
        """`schemas`: those of which the log tells."""
        self._executor = executor
        self._schemas = schemas

    async def check(self, given: Sequence[AnyTrigger]) -> list[KeptTrigger]:
        """Raises InvalidTriggerError, DatabaseUnavailableError."""
        kept = []
        for trigger in given:
            match trigger:
                case DatabaseTrigger():
                    await self._check_database(trigger)
                case CronTrigger():
                    parse_schedule(trigger.schedule, trigger.time_zone)
                    _check_payload(trigger.payload)
                case QueueTrigger():
                    pass
            attempts = trigger.max_attempts or ATTEMPTS[trigger.kind]
            name = trigger.name or _name_of(trigger)
            kept.append(KeptTrigger(name, trigger.kind, trigger.enabled, trigger.config, attempts))
        names = [trigger.name for trigger in kept]
        for name in names:
            if names.count(name) > 1:
                raise InvalidTriggerError(f"two triggers are named {name}", hint="give each a name")
        return kept

    async def _check_database(self, trigger: DatabaseTrigger) -> None:
        name = f"{trigger.schema}.{trigger.table}"[:130]
        is_own = (trigger.schema, trigger.table) in OWN_TABLES
        if trigger.schema not in self._schemas and not is_own:
            raise InvalidTriggerError(
                f"changes of {name} are not told",
                hint=f"those of {', '.join(sorted(self._schemas))} are, and of auth.users; the"
                " setting realtime_schemas adds others",
            )
        if not trigger.events:
            raise InvalidTriggerError("a trigger has events: INSERT, UPDATE, DELETE")
        (result,) = await self._executor.run(
            Statement.of(QUERIES["read_columns"], trigger.schema, trigger.table)
        )
        told = TOLD.get((trigger.schema, trigger.table))
        columns = {
            column.name: column
            for column in _COLUMNS.decode(result.value() or b"[]")
            if told is None or column.name in told  # a filter tells what it compares, too
        }
        if not columns:
            raise InvalidTriggerError(f"there is no table {name}")
        for column in trigger.columns or ():
            if column not in columns:
                raise InvalidTriggerError(f"{name} has no column {column[:64]}")
        try:
            await self._try_filter(parse_filter(trigger.filter), columns)
        except (ChangeFilterError, UnfilterableError) as error:
            raise InvalidTriggerError(f"filter: {error}") from error

    async def _try_filter(self, terms: Sequence[Term], columns: dict[str, ColumnType]) -> None:
        """By asking it of no row. Raises InvalidTriggerError, UnfilterableError."""
        for term in terms:
            asked = condition(term, columns, sql.SQL("null::text"))
            text = sql.SQL("select {}").format(asked).as_string()
            try:
                await self._executor.run(Statement.of(_numbered(text), *values_of(term)))
            except DatabaseError as error:
                raise InvalidTriggerError(f"filter: {term}: {error.message}") from error


_COLUMNS: Final = msgspec.json.Decoder(list[ColumnType])


def _check_payload(payload: Any) -> None:
    """Raises InvalidTriggerError."""
    data = msgspec.json.encode(payload)
    if len(data) > PAYLOAD_BYTES_MAX:
        raise InvalidTriggerError(f"a payload has {PAYLOAD_BYTES_MAX} bytes at most")
    if b"\\u0000" in data:
        raise InvalidTriggerError("a payload has no NUL", hint="Postgres keeps none in JSON")


def _numbered(query: str) -> bytes:
    """Of psycopg's placeholders the executor's: `%s` → `$1`."""
    first, *rest = query.split("%s")
    text = first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))
    return text.replace("%%", "%").encode()


def _name_of(trigger: AnyTrigger) -> str:
    match trigger:
        case DatabaseTrigger():
            text = (
                trigger.table if trigger.schema == "public" else f"{trigger.schema}-{trigger.table}"
            )
        case CronTrigger():
            text = "cron"
        case QueueTrigger():
            text = f"queue-{trigger.queue}"
    return _UNNAMED.sub("-", text)[:63] or "trigger"
