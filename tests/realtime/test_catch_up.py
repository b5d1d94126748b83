"""Those who are behind are brought to where the others are, whatever happens meanwhile."""

import asyncio
import random

import pytest

from butterbase.ingest.changes import DDL_PREFIX, Insert, LogicalMessage
from butterbase.ingest.lsn import LSN
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.window.position import ChangePosition
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, eventually
from tests.realtime.test_hub import Client, bench, commit


def at(lsn: int, ordinal: int | None = None) -> ChangePosition:
    return ChangePosition(LSN(lsn), ordinal)


async def test_what_was_missed_is_sent_before_what_happens() -> None:
    async with bench() as b:
        for lsn in range(1, 6):
            await b.hub.deliver(commit(lsn, lsn * 10, lsn * 10 + 1))
        client = b.join(since=at(3, 1))
        await b.hub.deliver(commit(6, 60))
        assert await client.ids(6) == [31, 40, 41, 50, 51, 60]
        assert client.frames.empty()


async def test_those_who_come_back_together_are_one_question() -> None:
    async with bench() as b:
        for lsn in range(1, 101):
            await b.hub.deliver(commit(lsn, lsn))
        clients = [b.join(since=at(n)) for n in range(100)]
        for number, client in enumerate(clients):
            assert await client.ids(100 - number) == list(range(number + 1, 101))
        assert len(b.policies.asked) == 1


async def test_whoever_is_further_on_goes_with_a_tour_and_whoever_is_not_with_the_next() -> None:
    async with bench(batch_change_count_max=5) as b:
        for lsn in range(1, 21):
            await b.hub.deliver(commit(lsn, lsn))
        b.policies.is_open.clear()
        first = b.join(since=at(5))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        ahead, behind = b.join(since=at(15)), b.join(since=at(1))
        b.policies.is_open.set()
        assert await ahead.ids(5) == list(range(16, 21))
        assert await first.ids(15) == list(range(6, 21))
        assert await behind.ids(19) == list(range(2, 21))
        statement_count = len(b.policies.asked)
        await b.hub.deliver(commit(21, 21))
        assert [await client.ids(1) for client in (first, ahead, behind)] == [[21]] * 3
        assert len(b.policies.asked) == statement_count + 1, "all of them are live"


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_missing_nothing_comes_twice_and_all_in_order(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    clients: list[tuple[Client, int]] = []
    async with bench(batch_change_count_max=chance.choice([1, 3, 500])) as b:
        number = 0
        for lsn in range(1, 80):
            rows = range(number, number := number + chance.randint(0, 4))
            ddl = [LogicalMessage(DDL_PREFIX, b"ALTER TABLE")] if chance.random() < 0.1 else []
            await b.hub.deliver(commit(lsn, *rows, *ddl))
            if chance.random() < 0.5:
                seen_lsn = chance.randint(0, lsn)
                client = b.join(chance.choice([ALICE, BOB]), since=at(seen_lsn))
                clients.append((client, seen_lsn))
            if chance.random() < 0.3:
                (b.policies.is_open.clear if chance.random() < 0.5 else b.policies.is_open.set)()
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
        b.policies.is_open.set()
        window = b.hub._window
        for client, seen_lsn in clients:
            commits = [window.commit_at(place) for place in range(window.end)]
            wanted = [
                int(str(change.new[0]))
                for made in commits
                if made is not None and made.lsn > seen_lsn
                for change in made.changes
                if isinstance(change, Insert)
            ]
            assert await client.ids(len(wanted)) == wanted
        for client, _ in clients:
            assert client.frames.empty()
            assert client.closed == []


async def test_whoever_is_overtaken_by_the_window_is_closed() -> None:
    async with bench(replay_memory_bytes_max=10_000, batch_change_count_max=1) as b:
        for lsn in range(1, 6):
            await b.hub.deliver(commit(lsn, lsn))
        b.policies.is_open.clear()
        client = b.join(since=at(1))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        for lsn in range(6, 1000):
            await b.hub.deliver(commit(lsn, lsn))
        b.policies.is_open.set()
        await eventually(lambda: bool(client.closed))
        assert client.closed == [Closing.OVERLOADED]


async def test_whose_position_is_gone_when_it_joins_is_closed() -> None:
    async with bench(replay_memory_bytes_max=2_000) as b:
        for lsn in range(1, 20):
            await b.hub.deliver(commit(lsn, lsn))
        client = b.join(since=at(1))
        await eventually(lambda: bool(client.closed))
        assert client.closed == [Closing.OVERLOADED]
        assert b.hub.subscriber_count == 0


async def test_a_fault_closes_those_on_the_tour_and_no_others() -> None:
    async with bench() as b:
        live = b.join()
        await b.hub.deliver(commit(1, 1))
        assert await live.ids(1) == [1]
        b.policies.failures = [RuntimeError("a bug")]
        client = b.join(since=at(0))
        await eventually(lambda: bool(client.closed))
        assert (client.closed, live.closed) == ([Closing.FAILED], [])
        again = b.join(since=at(0))
        assert await again.ids(1) == [1]


async def test_whoever_leaves_on_the_way_is_sent_no_more() -> None:
    async with bench(batch_change_count_max=1) as b:
        for lsn in range(1, 4):
            await b.hub.deliver(commit(lsn, lsn))
        b.policies.is_open.clear()
        leaving, staying = b.join(since=at(0)), b.join(since=at(0))
        await asyncio.wait_for(b.policies.was_asked.wait(), DEADLINE_S)
        b.hub.unregister(leaving.subscriber)
        b.policies.is_open.set()
        assert await staying.ids(3) == [1, 2, 3]
        assert leaving.frames.empty()


async def test_a_hub_that_ends_closes_all() -> None:
    async with bench() as b:
        live = b.join()
        await b.hub.deliver(commit(1, 1))
        assert await live.ids(1) == [1]
        b.policies.is_open.clear()
        behind = b.join(since=at(0))
        waiting = b.join(since=at(0))
    assert live.closed == behind.closed == waiting.closed == [Closing.RESTART]
