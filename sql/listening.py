"""`LISTEN`: one connection that hears a channel's notifications, and listens again when it is lost.

https://www.postgresql.org/docs/current/sql-listen.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from butterbase.sql.dsn import kept_alive

logger = logging.getLogger(__name__)

PAUSE_S_MIN = 1.0
PAUSE_S_MAX = 32.0


class Listener:
    def __init__(
        self,
        dsn: str,
        channel: str,
        *,
        hear: Callable[[str], None],
        on_listening: Callable[[], None],
        on_failure: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`hear` gets each payload; `on_listening`: those until now have been missed."""
        self._dsn = kept_alive(dsn)  # a channel may say nothing all day
        self._channel = channel
        self._hear = hear
        self._on_listening = on_listening
        self._on_failure = on_failure
        self._sleep = sleep
        self.is_listening = False

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                if self.is_listening:
                    pause_s = PAUSE_S_MIN
                self.is_listening = False
                logger.error("not listening on %s: %s", self._channel, str(error).strip())
                self._on_failure()
            await self._sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 2)

    async def _listen(self) -> None:
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            await conn.execute(SQL("listen {}").format(Identifier(self._channel)))
            self.is_listening = True
            self._on_listening()
            async for notification in conn.notifies():
                self._hear(notification.payload)
