"""Many clients that each read 20 MB: what the worker's memory comes to.

Half of the clients read as fast as they can, the other half stop for a while after the first
bytes, so that their answers have to wait somewhere.
"""

import asyncio
import time

import httpx

from . import machine
from .cases import BIG, Message
from .installation import Api

CLIENT_COUNT = 50
STALL_S = 3.0
TIMEOUT_S = 300.0


def measure(
    api: Api, headers: dict[str, str], *, client_count: int = CLIENT_COUNT
) -> dict[str, float]:
    """Resident memory of the worker before, and the most during; seconds until all have read."""
    found = {}
    for name, message in BIG.items():
        before_mb = machine.child_rss_mb(api.pid)
        machine.forget_peak(api.pid)
        started_at = time.perf_counter()
        size = asyncio.run(_read_all(message, api, headers, client_count))
        found[f"{name}_s"] = time.perf_counter() - started_at
        peak_mb = machine.child_peak_rss_mb(api.pid)
        if before_mb is not None and peak_mb is not None:
            found |= {f"{name}_rss_before_mb": before_mb, f"{name}_rss_peak_mb": peak_mb}
        took_s = found[f"{name}_s"]
        print(f"{name}: {client_count} clients read {size / 1e6:.0f} MB in {took_s:.1f} s")
    return found


async def _read_all(message: Message, api: Api, headers: dict[str, str], client_count: int) -> int:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=api.url, headers=headers, timeout=TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        sizes = await asyncio.gather(
            *(_read(message, client, STALL_S * (number % 2)) for number in range(client_count))
        )
    if len(set(sizes)) != 1:
        raise RuntimeError(f"clients read {sorted(set(sizes))} bytes")
    return sum(sizes)


async def _read(message: Message, client: httpx.AsyncClient, stall_s: float) -> int:
    size = 0
    async with client.stream(message.method, message.path) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_raw():
            if not size:
                await asyncio.sleep(stall_s)
            size += len(part)
    return size
