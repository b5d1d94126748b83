from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from tests.installation import Installation


@pytest.fixture
async def control(installation: Installation) -> AsyncIterator[AsyncConnection]:
    dsn = installation.control.dsn
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def main(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn
