"""`NOTIFY pgrst`: one connection that listens for what the database wants reloaded.

https://docs.postgrest.org/en/stable/references/listener.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

logger = logging.getLogger(__name__)

PAUSE_S_MIN = 1.0
PAUSE_S_MAX = 32.0

# A connection that says nothing all day must be found dead without a word of ours.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class Listener:
    """Listens on a channel, and again on a new connection when one is lost."""

    def __init__(
        self,
        dsn: str,
        channel: str,
        *,
        on_schema: Callable[[], None],
        on_config: Callable[[], None],
        on_failure: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._dsn = _listening_dsn(dsn)
        self._channel = channel
        self._on_schema = on_schema
        self._on_config = on_config
        self._on_failure = on_failure
        self._sleep = sleep
        self.is_listening = False

    async def run(self) -> None:
        """Until this task is cancelled."""
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
        connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        async with connection:
            await connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._channel)))
            self.is_listening = True
            if was_lost:  # so may have been notifications
                self._on_schema()
            async for notification in connection.notifies():
                self._hear(notification.payload)

    def _hear(self, payload: str) -> None:
        match payload:
            case "" | "reload schema":
                logger.info("asked to reload the schema on %s", self._channel)
                self._on_schema()
            case "reload config":
                logger.info("asked to reload the configuration on %s", self._channel)
                self._on_config()
            case _:  # the channel is the user's too
                pass


def _listening_dsn(dsn: str) -> str:
    """Of several hosts the primary: a replica neither listens nor is notified."""
    given = conninfo_to_dict(dsn)
    options = {name: value for name, value in _KEEPALIVES.items() if name not in given}
    return make_conninfo(dsn, target_session_attrs="read-write", **options)
