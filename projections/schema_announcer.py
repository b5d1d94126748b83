"""Tells the api workers that an app's schema has changed: DDL in the log → NOTIFY.

Workers plan requests with a copy of the schema (sql/relations), and this is how the copy is kept
in step. A notification is about the latest state, so many of them may become one.
"""

import asyncio
import logging

import psycopg
from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN

logger = logging.getLogger(__name__)

CHANNEL = "butterbase_schema"
"""In the control database; the payload is the app's id."""

RETRY_S = 1.0


class SchemaAnnouncer:
    """A reader of one app's log."""

    def __init__(self, app_id: str, control_dsn: str) -> None:
        self._app_id = app_id
        self._control_dsn = control_dsn
        self._changed = asyncio.Event()
        # What changed while nobody read the log is announced as well.
        self._changed.set()

    async def deliver(self, commit: Commit) -> None:
        if commit.has_ddl:
            self._changed.set()

    def position(self) -> LSN | None:
        return None  # announced anew at each start

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._announce()
            except psycopg.OperationalError:
                self._changed.set()
                logger.warning("app %s: schema changes wait to be announced", self._app_id)
                await asyncio.sleep(RETRY_S)

    async def _announce(self) -> None:
        # A connection of each app that waits for the next DDL would be most of the server's.
        async with await AsyncConnection.connect(self._control_dsn, autocommit=True) as conn:
            await conn.execute("select pg_notify(%s, %s)", (CHANNEL, self._app_id))
