"""Waiting for what another process or task does, with a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

DEADLINE_S = 30.0


async def until(
    condition: Callable[[], bool | Awaitable[bool]], within_s: float = DEADLINE_S
) -> None:
    """Return when the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.02)
