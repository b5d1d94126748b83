"""Waiting for what another process or task does, with a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

DEADLINE_S = 30.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.001, 0.02


async def until(
    condition: Callable[[], bool | Awaitable[bool]], within_s: float = DEADLINE_S
) -> None:
    """Return when the condition holds. Raises TimeoutError."""
    pause_s = PAUSE_S_MIN  # most of what is waited for is nearly there
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
