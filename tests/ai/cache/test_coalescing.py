"""Many ask the same at once: one call is made, and no failure of it is theirs."""

import asyncio
from typing import Any

import pytest

from butterbase.ai.seams import Lookup
from tests.ai.cache.conftest import OTHER_USER, SEMANTIC, Desk, Worker, fresh, text_of
from tests.waiting import until

COUNT = 50


def find_all(*workers: Worker, **asked: Any) -> list[asyncio.Task[Lookup]]:
    return [asyncio.create_task(workers[n % len(workers)].find(**asked)) for n in range(COUNT)]


async def leads_of(tasks: list[asyncio.Task[Lookup]], count: int = 1) -> list[Lookup]:
    """Those whose call is to be made, once there are as many."""

    def found() -> list[Lookup]:
        return [t.result() for t in tasks if t.done() and not t.cancelled()
                and t.result().state == "miss"]  # fmt: skip

    await until(lambda: len(found()) >= count)
    return found()


def flights(desk: Desk) -> list[Any]:
    return desk.execute(
        "select is_awaited from butterbase.ai_cache_flights where app_id = %s", desk.app_id
    )


@pytest.mark.parametrize("rules", [{}, SEMANTIC], ids=["exact", "semantic"])
async def test_in_one_worker_one_call_is_made(worker: Worker, rules: object) -> None:
    tasks = find_all(worker, rules=rules)
    (lead,) = await leads_of(tasks)
    await lead.keep(fresh())
    found = [lookup for lookup in await asyncio.gather(*tasks) if lookup is not lead]
    assert [text_of(lookup) for lookup in found] == ["the answer"] * (COUNT - 1)


async def test_of_two_workers_one_call_is_made(worker: Worker, other: Worker, desk: Desk) -> None:
    tasks = find_all(worker, other)
    (lead,) = await leads_of(tasks)
    await until(lambda: flights(desk) == [(True,)])
    assert sum(task.done() for task in tasks) == 1
    await lead.keep(fresh())
    found = [lookup for lookup in await asyncio.gather(*tasks) if lookup is not lead]
    assert [text_of(lookup) for lookup in found] == ["the answer"] * (COUNT - 1)
    assert flights(desk) == []


async def test_a_failure_is_the_leaders_alone(worker: Worker, other: Worker, desk: Desk) -> None:
    tasks = find_all(worker, other)
    (lead,) = await leads_of(tasks)
    await until(lambda: flights(desk) == [(True,)])
    lead.drop()
    found = await asyncio.gather(*tasks)
    # Each asks for itself, at once.
    assert [lookup.state for lookup in found] == ["miss"] * COUNT
    for lookup in found:
        await lookup.keep(fresh())
    assert (await worker.find()).state == "hit"


async def test_an_answer_that_cannot_be_written_is_nothing_to_wait_for(
    worker: Worker, other: Worker, desk: Desk
) -> None:
    tasks = find_all(worker, other)
    (lead,) = await leads_of(tasks)
    await until(lambda: flights(desk) == [(True,)])
    desk.execute("alter table butterbase.ai_cache add constraint refused check (false) not valid")
    try:
        await lead.keep(fresh())
        await until(lambda: flights(desk) == [])
    finally:
        desk.execute("alter table butterbase.ai_cache drop constraint refused")
    for lookup in await asyncio.gather(*tasks):
        if lookup.state == "miss":
            lookup.drop()


async def test_when_the_leader_leaves_another_takes_its_place(
    worker: Worker, other: Worker, desk: Desk
) -> None:
    tasks = find_all(worker, other)
    (lead,) = await leads_of(tasks)
    await until(lambda: flights(desk) == [(True,)])
    lead.drop(has_left=True)
    first, second = await leads_of(tasks, 2)
    await until(lambda: flights(desk) == [(True,)])
    lead = second if first is lead else first
    await lead.keep(fresh())
    found = await asyncio.gather(*tasks)
    assert sum(text_of(lookup) == "the answer" for lookup in found) == COUNT - 2


async def test_a_leader_that_leaves_ends_no_flight_but_its_own(
    worker: Worker, other: Worker, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = await worker.find()
    tasks = [asyncio.create_task(each.find()) for each in (worker, other)]
    await until(lambda: flights(desk) == [(True,)])
    land, may_land = worker.cache._store.land, asyncio.Event()

    async def land_late(*of: Any) -> None:
        await may_land.wait()
        await land(*of)

    monkeypatch.setattr(worker.cache._store, "land", land_late)
    lead.drop(has_left=True)
    for _ in range(20):  # time enough for one to take its place too early
        await asyncio.to_thread(flights, desk)
    may_land.set()
    await until(lambda: flights(desk) == [(True,)])
    (lead,) = await leads_of(tasks)
    await lead.keep(fresh())
    found = [lookup for lookup in await asyncio.gather(*tasks) if lookup is not lead]
    assert [text_of(lookup) for lookup in found] == ["the answer"]


async def test_who_waits_may_leave(worker: Worker) -> None:
    tasks = find_all(worker)
    (lead,) = await leads_of(tasks)
    leaving = [task for task in tasks if not task.done()][:10]
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    await lead.keep(fresh())
    staying = await asyncio.gather(*(task for task in tasks if not task.cancelled()))
    assert len(staying) == COUNT - 10


async def test_who_is_cancelled_while_it_looks_leaves_nobody_waiting(
    worker: Worker, other: Worker
) -> None:
    for _ in range(8):
        first, second = (asyncio.create_task(w.find()) for w in (worker, other))
        await asyncio.sleep(0)
        first.cancel()
        lookup = await asyncio.wait_for(second, 20)
        assert lookup.state == "miss"
        lookup.drop()
        await asyncio.wait([first])
        await worker.cache._keeper.finish()
        await other.cache._keeper.finish()


async def test_what_is_taken_after_its_caller_left_is_given_back(
    worker: Worker, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = worker.cache._store
    look, is_sent, may_arrive = store.look_or_lead, asyncio.Event(), asyncio.Event()

    async def arrive_late(*args: Any, **kwargs: Any) -> Any:
        is_sent.set()
        await may_arrive.wait()
        return await look(*args, **kwargs)

    sent: list[asyncio.Task[Any]] = []

    def send(*args: Any, **kwargs: Any) -> Any:
        # Cancelled too late: the statement is on its way.
        sent.append(asyncio.create_task(arrive_late(*args, **kwargs)))
        return asyncio.shield(sent[0])

    monkeypatch.setattr(store, "look_or_lead", send)
    caller = asyncio.create_task(worker.find())
    await is_sent.wait()
    caller.cancel()
    await asyncio.wait([caller])
    may_arrive.set()
    assert await sent[0] is True
    await worker.cache._keeper.finish()
    assert flights(desk) == []


async def test_users_do_not_wait_for_each_other(worker: Worker) -> None:
    one, two = await worker.find(), await worker.find(user_id=OTHER_USER)
    assert (one.state, two.state) == ("miss", "miss")


async def test_an_apps_users_do(worker: Worker) -> None:
    rules = {"scope": "app"}
    one = await worker.find(rules=rules)
    two = asyncio.create_task(worker.find(rules=rules, user_id=OTHER_USER))
    await asyncio.sleep(0)
    assert not two.done()
    await one.keep(fresh())
    assert text_of(await two) == "the answer"


async def test_a_worker_that_is_killed_is_not_waited_for_forever(
    worker: Worker, other: Worker, desk: Desk
) -> None:
    await worker.find()
    waiting = asyncio.create_task(other.find())
    await until(lambda: flights(desk) == [(True,)])
    # As if its lease had passed without a word.
    desk.execute(
        "update butterbase.ai_cache_flights set expires_at = now() where app_id = %s", desk.app_id
    )
    lookup = await waiting
    assert lookup.state == "miss"


async def test_a_worker_that_lives_is_waited_for(worker: Worker, other: Worker, desk: Desk) -> None:
    lead = await worker.find()
    waiting = asyncio.create_task(other.find())
    await until(lambda: flights(desk) == [(True,)])
    desk.execute(
        "update butterbase.ai_cache_flights set expires_at = now() where app_id = %s", desk.app_id
    )
    await worker.cache.renew()
    await lead.keep(fresh())
    assert text_of(await waiting) == "the answer"


async def test_an_answer_that_is_not_worth_keeping_is_no_ones(worker: Worker) -> None:
    tasks = find_all(worker)
    (lead,) = await leads_of(tasks)
    await lead.keep(fresh(""))
    found = await asyncio.gather(*tasks)
    assert [lookup.state for lookup in found] == ["miss"] * COUNT


async def test_a_renewing_call_is_not_waited_for(worker: Worker) -> None:
    await worker.find(cache_control="no-cache")
    assert (await worker.find()).state == "miss"
