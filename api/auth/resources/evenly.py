"""Answers at even times, where how long the work took would tell what is not to be told.

Work for an address that has an account differs by a few tenths of a millisecond from work for one
that has none, whatever is done to make both alike; an answer that waits for a tick differs by none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, TypeAlias, TypeVar

from falcon.asgi import Request, Response

TICK_S: Final = 0.01
"""Longer than nearly all the work takes: most answers go out at the first tick."""

_Resource = TypeVar("_Resource")
_Responder: TypeAlias = Callable[[_Resource, Request, Response], Awaitable[None]]


def evenly(respond: _Responder[_Resource]) -> Callable[[_Resource, Request, Response], Any]:
    """The responder, answering or refusing at a whole number of ticks after it was called."""

    @wraps(respond)
    async def respond_evenly(resource: _Resource, req: Request, resp: Response) -> None:
        time = asyncio.get_running_loop().time
        called_s = time()
        try:
            await respond(resource, req, resp)
        finally:
            await asyncio.sleep((called_s - time()) % TICK_S)

    return respond_evenly
