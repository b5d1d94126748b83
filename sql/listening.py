"""`LISTEN`: one connection that hears a channel's notifications, and listens again when it is lost.

https://www.postgresql.org/docs/current/sql-listen.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

logger = logging.getLogger(__name__)

PAUSE_S_MIN = 1.0
PAUSE_S_MAX = 32.0

# A connection that says nothing all day must be found dead without a word of ours.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class Listener:
    def __init__(
        self,
        dsn: str,
        channel: str,
        *,
        hear: Callable[[str], None],
        on_relistening: Callable[[], None],
        on_failure: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`hear` gets each payload; `on_relistening`: some may have been missed."""
        given = conninfo_to_dict(dsn)
        missing = {name: value for name, value in _KEEPALIVES.items() if name not in given}
        self._dsn = make_conninfo(dsn, **missing)
        self._channel = channel
        self._hear = hear
        self._on_relistening = on_relistening
        self._on_failure = on_failure
        self._sleep = sleep
        self.is_listening = False

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = PAUSE_S_MIN
        was_lost = False
        while True:
            try:
                await self._listen(was_lost=was_lost)
            except psycopg.Error as error:
                if self.is_listening:
                    pause_s = PAUSE_S_MIN
                self.is_listening = False
                logger.error("not listening on %s: %s", self._channel, str(error).strip())
                self._on_failure()
            was_lost = True
            await self._sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 2)

    async def _listen(self, *, was_lost: bool) -> None:
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            await conn.execute(SQL("listen {}").format(Identifier(self._channel)))
            self.is_listening = True
            if was_lost:
                self._on_relistening()
            async for notification in conn.notifies():
                self._hear(notification.payload)
