"""Whether all sums are those of the events, to the nano-dollar.

Calls may run meanwhile. What differs only because the log is being read agrees a moment later.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("money_check")

TRIES_MAX = 20
PAUSE_S = 0.5


class Difference(Struct, frozen=True):
    """A sum that is not that of its events."""

    app_id: str | None
    """None: of all apps."""
    scope: str
    """Of a budget; or `usage`, which is the app's whole report."""
    subject: str
    period: str
    starts_on: str | None
    kept_nanos: int
    event_nanos: int


_DIFFERENCES = msgspec.json.Decoder(list[Difference])


async def differences(control: Executor) -> list[Difference]:
    """In one snapshot. `control` is the control database's, as butterbase_stream.

    Raises DatabaseError, DatabaseUnavailableError.
    """
    (result,) = await control.run(Statement(QUERIES["differences"]))
    return _DIFFERENCES.decode(result.value() or b"[]")


async def reconcile(
    control: Executor, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> list[Difference]:
    """What differs for as long as we look; nothing is as it should be.

    Raises DatabaseError, DatabaseUnavailableError.
    """
    lasting = await differences(control)
    for _ in range(TRIES_MAX - 1):
        if not lasting:
            break
        await sleep(PAUSE_S)
        now = await differences(control)
        lasting = [difference for difference in now if difference in lasting]
    return lasting
