"""Keeps an app's publication in step with its schema: what is wanted may be made while we run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

RETRY_S = 5.0


class PublicationKeeper:
    """A reader of the app's log: after DDL it looks again.

    A schema that is exposed may be made later, or dropped and made again, which takes it out of
    the publication. New tables of a schema that is published are published from their making on.
    """

    def __init__(self, app_id: str, publish: Callable[[], Awaitable[None]]) -> None:
        self._app_id = app_id
        self._publish = publish
        self._changed = asyncio.Event()

    async def deliver(self, commit: Commit) -> None:
        if commit.has_ddl:
            self._changed.set()

    def position(self) -> LSN | None:
        return None  # looked at anew at each start

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish()
            except (psycopg.Error, ButterbaseError) as error:
                self._changed.set()
                logger.warning("app %s: its publication waits: %s", self._app_id, error)
                await asyncio.sleep(RETRY_S)
