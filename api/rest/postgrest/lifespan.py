"""ASGI's lifespan: what a worker does before its first request and after its last.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)


async def live(
    receive: Any,
    send: Any,
    *,
    start: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Answer the server's two events; a start that fails is told to it."""
    await receive()
    try:
        await start()
    except Exception as error:
        logger.exception("the worker did not start")
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await close()
    await send({"type": "lifespan.shutdown.complete"})
