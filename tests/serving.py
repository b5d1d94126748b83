"""The web edge, and other servers, on real sockets in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from tests.waiting import until


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a loopback port, a free one by default; yields its URL."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        **{"port": 0, **options},
        log_level="warning",
        lifespan="on",
        proxy_headers=False,  # as api/server.py has it
    )
    server = uvicorn.Server(config)
    # Its steps without its pauses, of a tenth of a second at the end of each test.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    assert server.started, "the server did not start"
    try:
        await server.on_tick(0)
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{bound}"
    finally:
        for listener in server.servers:
            listener.close()
        state = server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await until(lambda: not (state.connections or state.tasks))
        await server.lifespan.shutdown()


@asynccontextmanager
async def client_of(app: Any, *, port: int = 0, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(app, port=port) as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client,
    ):
        yield client


@asynccontextmanager
async def tcp_server(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None],
    **options: Any,
) -> AsyncIterator[int]:
    """Its port. It ends with its connections."""
    writers: list[asyncio.StreamWriter] = []

    def connect(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Awaitable[None] | None:
        writers.append(writer)
        return connected(reader, writer)

    server = await asyncio.start_server(connect, "127.0.0.1", 0, **options)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        # Before Python 3.12 `wait_closed` waits for no connection.
        await until(lambda: not getattr(server, "_active_count", 0))
        await server.wait_closed()
