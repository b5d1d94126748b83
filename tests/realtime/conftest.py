import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
import uvloop

from tests.installation import Installation, installed
from tests.postgres import Databases
from tests.realtime.streaming import Stream, streaming


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The stream process runs on uvloop, whose transports are not asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def app(postgres: Databases, installation_template: Installation) -> Iterator[Installation]:
    """An app for all tests of a file; each makes its own tables."""
    with installed(postgres, installation_template) as installation:
        yield installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stream(app: Installation) -> AsyncIterator[Stream]:
    """A running stream process over the file's app."""
    async with streaming(app) as stream:
        yield stream
