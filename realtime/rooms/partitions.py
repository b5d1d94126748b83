"""The days of `realtime.messages`: partitions made ahead, and dropped when they are old.

It is done as the developer's role, who owns the table: see the migration. Where it cannot be done
rows go to the default partition, and reach subscribers all the same.
"""

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg
from psycopg import AsyncConnection, sql

logger = logging.getLogger(__name__)

AHEAD_DAYS: Final = 3
KEPT_DAYS: Final = 3
"""72 hours; a day is dropped once all of it is older."""

INTERVAL_S: Final = 3600.0
RETRY_S: Final = 60.0

_HEAD: Final = "messages_"
_LOCK_TIMEOUT: Final = "set lock_timeout = '2s'"
# Several processes may do it.
_LOCK: Final = "select pg_try_advisory_xact_lock(hashtextextended('realtime.messages', 0))"
_FIND: Final = """
    select child.relname from pg_catalog.pg_inherits
    join pg_catalog.pg_class child on child.oid = inhrelid
    where inhparent = 'realtime.messages'::regclass
"""
# Rows in the default partition of a day that gets one of its own could not stay there.
_IS_IN_DEFAULT: Final = """
    select exists (
      select from realtime.messages_default
      where inserted_at >= %s and inserted_at < %s)
"""
_CREATE: Final = sql.SQL(
    "create table realtime.{} partition of realtime.messages for values from ({}) to ({})"
)
_DROP: Final = sql.SQL("drop table realtime.{}")
_EMPTY_DEFAULT: Final = "delete from realtime.messages_default where inserted_at < %s"


def name_of(day: date) -> str:
    return f"{_HEAD}{day:%Y_%m_%d}"


def missing(existing: Collection[str], today: date) -> list[date]:
    """The days, from today on, that have no partition."""
    days = [today + timedelta(days=ahead) for ahead in range(AHEAD_DAYS + 1)]
    return [day for day in days if name_of(day) not in existing]


def expired(existing: Collection[str], today: date) -> list[str]:
    """Partitions of days that are over for long. Others that a developer has made stay."""
    first = today - timedelta(days=KEPT_DAYS)
    return sorted(name for name in existing if (day := _day_of(name)) is not None and day < first)


def _day_of(name: str) -> date | None:
    try:
        return datetime.strptime(name, f"{_HEAD}%Y_%m_%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


class Partitions:
    """One app's upkeep: `run` it until cancelled."""

    def __init__(self, owner_dsn: str) -> None:
        self._dsn = owner_dsn

    async def run(self) -> None:
        while True:
            try:
                await self.keep(datetime.now(UTC).date())
            except psycopg.Error as error:
                logger.warning("partitions of realtime.messages cannot be kept: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(INTERVAL_S)

    async def keep(self, today: date) -> None:
        """Make and drop what is due, each by itself. Raises psycopg.Error."""
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            await conn.execute(_LOCK_TIMEOUT)
            existing = {name for (name,) in await (await conn.execute(_FIND)).fetchall()}
            for name in expired(existing, today):
                await _in_turn(conn, _DROP.format(sql.Identifier(name)))
            for day in missing(existing, today):
                await _make(conn, day)
            before = datetime.combine(today - timedelta(days=KEPT_DAYS), datetime.min.time())
            await conn.execute(_EMPTY_DEFAULT, [before])


async def _make(conn: AsyncConnection, day: date) -> None:
    bounds = [datetime.combine(day + timedelta(days=n), datetime.min.time()) for n in (0, 1)]
    row = await (await conn.execute(_IS_IN_DEFAULT, bounds)).fetchone()
    if row == (True,):
        return
    await _in_turn(
        conn, _CREATE.format(sql.Identifier(name_of(day)), *(sql.Literal(str(b)) for b in bounds))
    )


async def _in_turn(conn: AsyncConnection, statement: sql.Composed) -> None:
    async with conn.transaction():
        row = await (await conn.execute(_LOCK)).fetchone()
        if row == (True,):
            await conn.execute(statement)
