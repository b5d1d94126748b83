import asyncio
from collections.abc import AsyncIterator

import pytest

from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.relations.holder import SchemaCacheHolder
from butterbase.sql.relations.model import SchemaCache


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
    "error", [DatabaseUnavailableError("gone"), DatabaseError("XX000", "cache lookup failed")]
)
async def test_a_load_that_the_database_fails_is_tried_again(
    holder: SchemaCacheHolder, loads: Loads, error: Exception
) -> None:
    reload = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_exception(error)
    ends = await loads.begun.get()
    assert not reload.done()
    ends.set_result(numbered(1))
    await reload
    assert holder.version == 1


async def test_any_other_error_is_the_callers_and_the_next_reload_loads(
    holder: SchemaCacheHolder, loads: Loads
) -> None:
    reload = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_exception(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await reload
    again = asyncio.create_task(holder.reload())
    (await loads.begun.get()).set_result(numbered(1))
    await again
    assert holder.current == numbered(1)


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
