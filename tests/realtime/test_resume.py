"""Nothing is lost and nothing comes twice, however often subscribers and the stream are cut."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from functools import partial

import psycopg
import pytest

from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.hub import Hub
from butterbase.realtime.errors import LogNotReadyError, ResyncRequiredError
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ChangePosition, parse_position
from tests.installation import Installation
from tests.realtime.resuming import EVENTS, EVERY_EVENT, Listener, Truth, read, write
from tests.realtime.streaming import Stream, streaming
from tests.waiting import until

WRITER_COUNT = 3
TERMINATE = """
    select pg_terminate_backend(active_pid) from pg_replication_slots
    where slot_name = %s and active_pid is not null
"""


@pytest.fixture
def truth(app: Installation) -> Iterator[Truth]:
    app.as_owner(EVENTS)
    truth = Truth(app)
    yield truth
    truth.drop()


def insert(app: Installation, count: int = 1) -> None:
    app.as_owner(f"insert into events (body) select 'a' from generate_series(1, {count})")  # noqa: S608


def have(listeners: Sequence[Listener], id_: int) -> bool:
    return all(id_ in listener.ids for listener in listeners)


async def come_and_go(listener: Listener, hub: Hub, chance: random.Random) -> None:
    """Until cancelled, which leaves it connected."""
    while True:
        await asyncio.sleep(chance.random() * 0.05)
        listener.cut(hub)
        await asyncio.sleep(chance.random() * 0.05)
        await listener.open(hub)


async def disturbed(
    app: Installation, stream: Stream, listeners: list[Listener], seed: int
) -> None:
    """A workload during which listeners come, go and come back."""
    chance = random.Random(seed)  # noqa: S311
    tasks = []
    writers = [
        asyncio.create_task(write(app.owner_dsn, seed * 100 + n, 60)) for n in range(WRITER_COUNT)
    ]
    for listener in listeners:
        await listener.open(stream.hub)
        tasks.append(asyncio.create_task(come_and_go(listener, stream.hub, chance)))
    await asyncio.gather(*writers)
    for task in tasks:
        task.cancel()
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(done, asyncio.CancelledError), done
    for listener in listeners:
        listener.cut(stream.hub)
        await listener.open(stream.hub)


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_subscriber_sees_each_commit_once_and_in_order(
    app: Installation, truth: Truth, seed: int
) -> None:
    listeners = [Listener() for _ in range(8)]
    readers: dict[Listener, list[int]] = {}
    for restart in range(3):
        async with streaming(app) as stream:
            await disturbed(app, stream, [*listeners, *readers], seed * 10 + restart)
            await until(partial(have, [*listeners, *readers], (await truth.read())[-1]))
        for _ in range(3):
            insert(app)
            reader = Listener()
            reader.position, readers[reader] = await read(app.owner_dsn)
    insert(app)
    async with streaming(app) as stream:
        for listener in (*listeners, *readers):
            await listener.open(stream.hub)
        await until(partial(have, [*listeners, *readers], (await truth.read())[-1]))
    for listener in listeners:
        assert listener.ids == truth.behind(listener.began_at)
        assert set(listener.closed) == {Closing.RESTART}, "with the stream, and never else"
    for reader, was_read in readers.items():
        assert reader.ids == [id_ for id_ in truth.ids if id_ not in set(was_read)]


async def test_every_position_can_be_resumed_also_after_a_restart(
    app: Installation, truth: Truth
) -> None:
    first = Listener()
    async with streaming(app) as stream:
        await first.open(stream.hub)
        await asyncio.gather(*(write(app.owner_dsn, n, 30) for n in range(WRITER_COUNT)))
        await truth.read()
        wanted = truth.behind(first.began_at)
        await until(lambda: len(first.ids) == len(wanted))
        assert first.ids == wanted
        await resume_everywhere(stream, first)
    async with streaming(app) as stream:
        await resume_everywhere(stream, first)


async def resume_everywhere(stream: Stream, first: Listener) -> None:
    positions = [first.began_at, *(parse_position(event.position) for event in first.events)]
    listeners = []
    for position in positions:
        listener = Listener()
        listener.position = position
        await listener.open(stream.hub)
        listeners.append(listener)
    await until(lambda: all(len(one.ids) == len(first.ids) - n for n, one in enumerate(listeners)))
    for number, listener in enumerate(listeners):
        assert listener.ids == first.ids[number:]
        listener.cut(stream.hub)


async def test_a_slow_subscriber_is_told_the_rest_when_it_has_taken_what_it_was_sent(
    app: Installation, truth: Truth
) -> None:
    settings = RealtimeSettings(batch_change_count_max=10)
    async with streaming(app, settings=settings) as stream:
        slow, quick = Listener(), Listener()
        await Listener().open(stream.hub)  # a read is known from when the log began to be read
        slow.position = quick.position = (await read(app.owner_dsn))[0]
        for _ in range(5):
            insert(app, 25)
        ids = await truth.read()
        await until(lambda: stream.hub.tail >= LSN(0) and len(stream.hub._window._entries) >= 5)
        slow.is_slow = True
        await slow.open(stream.hub)
        await quick.open(stream.hub)
        await until(lambda: quick.ids == ids)
        assert slow.ids == []
        slow.is_slow = False
        await until(lambda: slow.ids == ids)


async def test_what_is_too_old_must_be_read_anew(app: Installation, truth: Truth) -> None:
    settings = RealtimeSettings(replay_age_s=0.2, replay_interval_s=0.05)
    async with streaming(app, settings=settings) as stream:
        listener = Listener()
        await listener.open(stream.hub)
        read_before, _ = await read(app.owner_dsn)
        insert(app, 3)
        await until(lambda: len(listener.ids) == 3)
        first, _, last = (parse_position(event.position) for event in listener.events)
        insert(app)
        await until(lambda: len(listener.ids) == 4)

        async def is_refused(position: object) -> bool:
            try:
                await stream.hub.prepare(listener.claims, [EVERY_EVENT], position)  # type: ignore[arg-type]
            except ResyncRequiredError as error:
                parse_position(error.position)
                return True
            return False

        await until(lambda: is_refused(first))
        await until(lambda: is_refused(read_before))
        assert not await is_refused(last), "of its commit nothing more comes"
        assert not await is_refused(listener.position)
        assert not await is_refused((await read(app.owner_dsn))[0])


async def test_the_log_is_released_when_nothing_more_comes(app: Installation, truth: Truth) -> None:
    settings = RealtimeSettings(replay_age_s=0.2, replay_interval_s=0.05)
    async with streaming(app, settings=settings) as stream:
        listener = Listener()
        await listener.open(stream.hub)
        insert(app)
        await until(lambda: len(listener.ids) == 1)
        lsn = listener.events[0].position.rsplit("/", 1)[0]
        with psycopg.connect(app.main.dsn, autocommit=True) as conn:
            await until(lambda: is_released(conn, stream.slot, lsn))
    # The last change is known all the same, and so is the read of who has seen none.
    quiet = Listener()
    quiet.position = listener.began_at
    async with streaming(app, settings=settings) as stream:
        await listener.open(stream.hub)
        insert(app)
        await until(lambda: len(listener.ids) == 2)
        with pytest.raises(ResyncRequiredError):
            await quiet.open(stream.hub)


async def test_positions_of_another_log_are_refused(app: Installation, truth: Truth) -> None:
    async with streaming(app) as stream:
        listener = Listener()
        listener.position = ChangePosition(LSN(2**63), 1)
        with pytest.raises(ResyncRequiredError, match="not of this log"):
            await listener.open(stream.hub)
        listener.position = parse_position(f"0/1@3:{2**40}:")
        with pytest.raises(ResyncRequiredError, match="not of this log"):
            await listener.open(stream.hub)
        listener.position = ChangePosition(LSN(1), 1)
        with pytest.raises(ResyncRequiredError, match="not kept any more"):
            await listener.open(stream.hub)


async def test_a_slot_that_was_made_anew_knows_nothing_of_before(
    app: Installation, truth: Truth
) -> None:
    async with streaming(app) as stream:
        listener = Listener()
        await listener.open(stream.hub)
        insert(app)
        await until(lambda: len(listener.ids) == 1)
        quiet = Listener()
        quiet.position, _ = await read(app.owner_dsn)
    insert(app)
    with psycopg.connect(app.main.dsn, autocommit=True) as conn:
        conn.execute("select pg_drop_replication_slot(%s)", [stream.slot])
    async with streaming(app) as stream:
        for late in (listener, quiet):
            with pytest.raises(ResyncRequiredError):
                await late.open(stream.hub)


async def test_what_another_process_has_read_meanwhile_is_no_silent_gap(
    app: Installation, truth: Truth
) -> None:
    short = RealtimeSettings(replay_age_s=0.05, replay_interval_s=0.05, log_wait_s=0.5)
    async with streaming(app) as first:
        listener = Listener()
        await listener.open(first.hub)
        insert(app)
        await until(lambda: len(listener.ids) == 1)
        with psycopg.connect(app.main.dsn, autocommit=True) as conn:
            async with streaming(app, settings=short) as second:
                other = Listener()

                async def has_taken_over() -> bool:
                    if await is_open(other, second.hub):
                        return True
                    conn.execute(TERMINATE, [first.slot])  # it may have been back first
                    return False

                await until(has_taken_over)
                insert(app, 3)
                await until(lambda: other.ids[-3:] == [2, 3, 4])
                lsn = other.events[-1].position.rsplit("/", 1)[0]
                await until(lambda: is_released(conn, first.slot, lsn))
        insert(app)
        await until(lambda: bool(listener.closed))
        assert (listener.ids, listener.closed) == ([1], [Closing.FAILED])
        with pytest.raises(ResyncRequiredError):
            await listener.open(first.hub)


async def is_open(listener: Listener, hub: Hub) -> bool:
    try:
        await listener.open(hub)
    except LogNotReadyError:
        return False
    return True


def is_released(conn: psycopg.Connection, slot: str, lsn: str) -> bool:
    query = "select confirmed_flush_lsn >= %s from pg_replication_slots where slot_name = %s"
    return conn.execute(query, [lsn, slot]).fetchone() == (True,)
