"""Names → addresses for the requests of functions: so many at a time for each app.

The system's resolver blocks a thread, and for seconds where a name's server does not answer. An app
that asks for such names holds up no other app.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

THREAD_COUNT: Final = 32
COUNT_MAX: Final = 4
"""Of one app; further ones wait."""


def resolver_threads() -> ThreadPoolExecutor:
    """For all apps."""
    return ThreadPoolExecutor(THREAD_COUNT, thread_name_prefix="functions-names")


class Resolver(AbstractResolver):
    """Of one app."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._room = asyncio.Semaphore(COUNT_MAX)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError."""
        await self._room.acquire()
        # The thread cannot be stopped: its place is free when it ends, whoever has left by then.
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, _addresses, host, port, family
        )
        asking.add_done_callback(self._asked)
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """Nothing is held."""

    def _asked(self, asking: "asyncio.Future[list[ResolveResult]]") -> None:
        self._room.release()
        if not asking.cancelled():
            asking.exception()  # nobody may wait for it any more


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=found,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found, _, protocol, _, address in infos
    ]
