"""A provider for the clients' tests, which runs beside them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.ai.upstream import (
    COMPLETION,
    DONE,
    EMBEDDINGS,
    USAGE,
    Received,
    Script,
    Upstream,
    answer,
    chunk,
    running_upstream,
    stream,
)

LISTING = {"object": "list", "data": [{"id": "gpt-test"}, {"id": "embed"}]}


@contextmanager
def models() -> Iterator[Upstream]:
    """It answers as it is asked, in a thread of its own."""
    loop, stop, begun = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    upstreams: list[Upstream] = []

    async def serve() -> None:
        async with running_upstream() as upstream:
            upstream.script = as_asked
            upstreams.append(upstream)
            begun.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    begun.wait()
    try:
        yield upstreams[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def as_asked(request: Received, writer: asyncio.StreamWriter) -> None:
    await _script(request)(request, writer)


def _script(request: Received) -> Script:
    if request.path.endswith("/models"):
        return answer(200, LISTING)
    if request.path.endswith("/embeddings"):
        return answer(200, EMBEDDINGS)
    asked = request.json()
    if not asked.get("stream"):
        return answer(200, COMPLETION)
    end = None if asked["model"] == "slow" else chunk(finish="stop") + chunk(usage=USAGE) + DONE
    return stream(chunk("Hel"), chunk("lo"), end)
