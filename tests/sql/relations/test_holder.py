import asyncio
from collections.abc import AsyncIterator

import pytest

from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.relations.holder import SchemaCacheHolder
from butterbase.sql.relations.model import SchemaCache
from tests.waiting import until


class Loads:
    """A loader whose loads end when the test says so."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[asyncio.Future[SchemaCache]] = asyncio.Queue()

    async def __call__(self) -> SchemaCache:
        ends = asyncio.get_running_loop().create_future()
        self.begun.put_nowait(ends)
        result: SchemaCache = await ends
        return result


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
async def holder(loads: Loads) -> AsyncIterator[SchemaCacheHolder]:
    holder = SchemaCacheHolder(loads, retry_min_s=0, retry_max_s=0)
    yield holder
    await holder.close()


def numbered(number: int) -> SchemaCache:
    return SchemaCache(server_version=number)


async def test_nothing_is_held_before_the_first_load(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    assert (holder.current, holder.version) == (None, 0)
    reload = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_result(numbered(1))
    await reload
    assert (holder.current, holder.version) == (numbered(1), 1)


async def test_the_old_one_is_held_while_the_new_one_loads(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    for number in (1, 2):
        reload = asyncio.create_task(holder.reload())
        ends = await loads.begun.get()
        assert holder.version == number - 1
        ends.set_result(numbered(number))
        await reload
    assert (holder.current, holder.version) == (numbered(2), 2)


async def test_reloads_asked_for_during_one_share_the_next(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    first = asyncio.create_task(holder.reload())
    ends = await loads.begun.get()
    later = [asyncio.create_task(holder.reload()) for _ in range(3)]
    await asyncio.sleep(0)
    ends.set_result(numbered(1))
    await first
    next_ends = await loads.begun.get()
    assert not any(task.done() for task in later)
    next_ends.set_result(numbered(2))
    await asyncio.gather(*later)
    assert (holder.current, holder.version) == (numbered(2), 2)
    assert loads.begun.empty()


@pytest.mark.parametrize(
    "error",
    [
        DatabaseUnavailableError("gone"),
        DatabaseError("XX000", "cache lookup failed"),
        ValueError("a bug"),
    ],
)
async def test_a_load_that_fails_is_the_callers_and_is_tried_again(
    holder: SchemaCacheHolder, loads: Loads, error: Exception
) -> None:
    reload = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_exception(error)
    with pytest.raises(type(error)):
        await reload
    assert (holder.current, holder.version) == (None, 0)
    (await loads.begun.get()).set_exception(error)
    (await loads.begun.get()).set_result(numbered(1))
    await until(lambda: holder.version == 1)
    assert loads.begun.empty()


async def test_who_asks_does_not_wait_for_the_next_try(loads: Loads) -> None:
    holder = SchemaCacheHolder(loads, retry_min_s=3600, retry_max_s=3600)
    for error in (DatabaseUnavailableError("gone"), DatabaseUnavailableError("still")):
        reload = asyncio.create_task(holder.reload())
        (await loads.begun.get()).set_exception(error)
        with pytest.raises(DatabaseUnavailableError):
            await reload
    holder.ask()
    (await loads.begun.get()).set_result(numbered(1))
    await until(lambda: holder.version == 1)
    await holder.close()


async def test_another_version_is_caught_up_with_or_says_why_not(loads: Loads) -> None:
    version = b"1"

    async def read_version() -> bytes:
        return version

    holder = SchemaCacheHolder(loads, read_version=read_version, retry_min_s=3600)
    reload = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_result(numbered(1))
    await reload
    assert not await holder.catch_up()
    version = b"2"
    catching_up = asyncio.create_task(holder.catch_up())
    (await loads.begun.get()).set_exception(DatabaseError("57014", "timed out"))
    with pytest.raises(DatabaseError):
        await catching_up
    assert holder.current == numbered(1)
    catching_up = asyncio.create_task(holder.catch_up())
    (await loads.begun.get()).set_result(numbered(2))
    assert await catching_up
    await holder.close()


async def test_a_caller_that_leaves_does_not_stop_the_load(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    leaving = asyncio.create_task(holder.reload())
    ends = await loads.begun.get()
    staying = asyncio.create_task(holder.reload())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    ends.set_result(numbered(1))
    (await loads.begun.get()).set_result(numbered(2))
    await staying
    assert holder.version == 2


async def test_closing_cancels_who_waits(holder: SchemaCacheHolder, loads: Loads) -> None:
    waiting = asyncio.create_task(holder.reload())
    await loads.begun.get()
    next_waiting = asyncio.create_task(holder.reload())
    await asyncio.sleep(0)
    await holder.close()
    for task in (waiting, next_waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert holder.current is None


async def test_closing_cancels_who_waits_for_a_load_that_has_not_begun(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    waiting = asyncio.create_task(holder.reload())
    await asyncio.sleep(0)  # it has asked, and the loader has not had its turn
    await holder.close()
    assert loads.begun.empty()
    await asyncio.wait({waiting}, timeout=10)
    assert waiting.cancelled()
