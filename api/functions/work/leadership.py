"""One of the processes that run functions leads: it alone looks at schedules and sweeps records.

It holds an advisory lock of the control database for as long as its connection lives.
"""

import asyncio
import logging
from typing import Final

import psycopg
from psycopg import AsyncConnection

from butterbase.sql.dsn import kept_alive

logger = logging.getLogger(__name__)

RETRY_S: Final = 2.0
_LOCK: Final = "select pg_try_advisory_lock(hashtextextended('butterbase.functions.cron', 0))"


class Leadership:
    def __init__(self, control_dsn: str) -> None:
        self._dsn = kept_alive(control_dsn)
        self.is_held = asyncio.Event()

    async def run(self) -> None:
        """Stand by, and lead when nobody does, until cancelled."""
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    await self._hold(conn)
            except psycopg.Error as error:
                logger.warning("who leads is not known: %s; trying again", str(error).strip())
            finally:
                self.is_held.clear()
            await asyncio.sleep(RETRY_S)

    async def _hold(self, conn: AsyncConnection) -> None:
        """Raises psycopg.Error when the connection is lost, and the lock with it."""
        while True:
            if self.is_held.is_set():
                await conn.execute("select")
            else:
                row = await (await conn.execute(_LOCK)).fetchone()
                if row == (True,):
                    self.is_held.set()
            await asyncio.sleep(RETRY_S)
