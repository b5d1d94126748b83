"""A proxy that breaks connections in ways that a server does not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Between the consumer and the server, to be frozen: open connections go silent."""

    def __init__(
        self,
        target: str,
        directory: Path,
        *,
        cut_at: bytes | None = None,
        freeze_at: bytes | None = None,
    ) -> None:
        """`cut_at` and `freeze_at`: what one side says last."""
        self._cut_at = cut_at
        self._freeze_at = freeze_at
        parameters = conninfo_to_dict(target)
        self._host, self._port = str(parameters["host"]), int(str(parameters["port"]))
        self._socket = directory / f".s.PGSQL.{self._port}"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._relays: set[asyncio.Task[None]] = set()
        self.dsn = make_conninfo(target, host=str(directory), hostaddr="")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._accept, self._socket):
            yield
            for relay in self._relays:
                relay.cancel()
            await asyncio.gather(*self._relays, return_exceptions=True)

    def freeze(self) -> None:
        """Silence every connection there is; later ones flow."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._host.startswith("/"):
            path = f"{self._host}/.s.PGSQL.{self._port}"
            to_server = await asyncio.open_unix_connection(path)
        else:
            to_server = await asyncio.open_connection(self._host, self._port)
        for source, sink in ((reader, to_server[1]), (to_server[0], writer)):
            relay = asyncio.create_task(self._relay(source, sink))
            self._relays.add(relay)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        flowing = self._flowing
        with contextlib.closing(sink), contextlib.suppress(ConnectionError):
            data = b"-"
            while data:
                data = await source.read(65536)
                if self._cut_at is not None and self._cut_at in data:
                    break
                if self._freeze_at is not None and self._freeze_at in data:
                    self.freeze()
                # Frozen, not even the end of the other side is passed on.
                await flowing.wait()
                sink.write(data)
                await sink.drain()
