import asyncio
from contextlib import suppress

from butterbase.sql.cancelling import check_cancelled


async def test_work_that_goes_on_after_errors_ends_when_it_is_cancelled() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        while True:
            with suppress(ConnectionError):
                try:
                    begun.set()
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise ConnectionError from None
            check_cancelled()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_nothing_is_raised_before() -> None:
    check_cancelled()
