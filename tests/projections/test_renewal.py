"""Rows made anew beside the running log, and after a gap in it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.slot import ensure_slot
from butterbase.projections import renewal
from butterbase.projections.checkpoint import read_checkpoint
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.runner import ProjectionRunner
from butterbase.projections.usage import UsageProjection
from butterbase.sql.cluster import LoginRole
from tests.installation import Installation
from tests.projections.following import insert_call, log_of, reading
from tests.projections.indexing import Model, indexing, until_settled
from tests.waiting import until

USAGE = """
select app_id, day, user_id, endpoint, provider, model, requests, failures, prompt_tokens,
  completion_tokens
from butterbase.usage order by 1, 2, 3, 4, 5, 6
"""
EXPECTED = """
select count(*), coalesce(sum((data ->> 'prompt_tokens')::int), 0) from butterbase.events
where type = 'ai.call'
"""
SUMS = "select coalesce(sum(requests), 0), coalesce(sum(prompt_tokens), 0) from butterbase.usage"


async def fetch(conn: AsyncConnection, query: str) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode())).fetchall()


async def drop_slot(conn: AsyncConnection, slot: str) -> None:
    """Once its reader has gone."""

    async def is_free() -> bool:
        query = "select from pg_replication_slots where slot_name = %s and not active"
        return (await conn.execute(query, [slot])).rowcount == 1

    await until(is_free)
    await conn.execute("select pg_drop_replication_slot(%s)", [slot])


@pytest.fixture
async def control(installation: Installation, control: AsyncConnection) -> AsyncConnection:
    """With a slot."""
    await ensure_slot(control, installation.control.name)
    return control


@pytest.fixture
async def stream(installation: Installation) -> AsyncIterator[AsyncConnection]:
    """As the stream process connects to the control database."""
    dsn = installation.cluster.dsn(LoginRole.STREAM, installation.control.name)
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield conn


async def test_a_rebuilt_projection_equals_the_live_one_while_events_are_written(
    installation: Installation, control: AsyncConnection, stream: AsyncConnection
) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311  guards nothing
    print("seed", seed)  # noqa: T201  shown when the test fails
    chance = random.Random(seed)  # noqa: S311  guards nothing

    async def write() -> None:
        async with await AsyncConnection.connect(installation.control.dsn) as conn:
            while True:
                for _ in range(chance.randint(1, 5)):
                    await insert_call(conn, prompt_tokens=chance.randint(1, 9))
                await (conn.rollback() if chance.random() < 0.2 else conn.commit())

    log = log_of(installation.cluster, installation.control.name)
    runner = ProjectionRunner(UsageProjection(), log)
    async with reading(log, runner):
        writers = [asyncio.create_task(write()) for _ in range(3)]
        for _ in range(15):
            await renewal.rebuild(stream, UsageProjection())
        for writer in writers:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer

        async def is_in_step() -> bool:
            (counted,), (there,) = await fetch(control, SUMS), await fetch(control, EXPECTED)
            return counted == there

        await until(is_in_step)
        await insert_call(control, prompt_tokens=1)
        await until(is_in_step)
        live = await fetch(control, USAGE)
        await renewal.rebuild(stream, UsageProjection())
        assert await fetch(control, USAGE) == live
        assert live[0][6] > 10


async def test_an_event_that_is_no_call_is_counted_neither_live_nor_rebuilt(
    installation: Installation, control: AsyncConnection, stream: AsyncConnection
) -> None:
    log = log_of(installation.cluster, installation.control.name)
    runner = ProjectionRunner(UsageProjection(), log)
    async with reading(log, runner):
        await insert_call(control, prompt_tokens=-1)
        await insert_call(control, type="ai.other")
        await insert_call(control, prompt_tokens=7)

        async def is_counted() -> bool:
            return await fetch(control, SUMS) == [(1, 7)]

        await until(is_counted)
        live = await fetch(control, USAGE)
    await renewal.rebuild(stream, UsageProjection())
    assert await fetch(control, USAGE) == live


async def test_a_gap_in_the_log_is_closed_before_anything_is_applied(
    installation: Installation, control: AsyncConnection, stream: AsyncConnection
) -> None:
    log = log_of(installation.cluster, installation.control.name)

    async def is_counted() -> bool:
        return await fetch(control, SUMS) == await fetch(control, EXPECTED)

    async with reading(log, ProjectionRunner(UsageProjection(), log)):
        await insert_call(control)
        await until(is_counted)
    await insert_call(control)  # in the log that is lost
    await drop_slot(control, log.slot)
    await insert_call(control)
    lsn = await ensure_slot(control, log.slot)
    await insert_call(control)
    async with reading(log, ProjectionRunner(UsageProjection(), log)):
        await until(is_counted)
        assert await read_checkpoint(stream, "usage") >= lsn
        await insert_call(control)
        await until(is_counted)
    assert await fetch(control, SUMS) == [(5, 50)]


async def test_the_gap_is_closed_once(
    installation: Installation, control: AsyncConnection, stream: AsyncConnection
) -> None:
    slot = installation.control.name
    await drop_slot(control, slot)
    await ensure_slot(control, slot)
    assert await renewal.resync(stream, UsageProjection(), slot)
    assert not await renewal.resync(stream, UsageProjection(), slot)


async def test_what_was_there_before_the_first_slot_is_projected(
    installation: Installation,
) -> None:
    """A database that was restored, or a projection that is new."""
    name = installation.control.name
    async with await AsyncConnection.connect(installation.control.dsn, autocommit=True) as conn:
        await insert_call(conn)
        await ensure_slot(conn, name)
        log = log_of(installation.cluster, name)
        async with reading(log, ProjectionRunner(UsageProjection(), log)):

            async def is_counted() -> bool:
                return await fetch(conn, SUMS) == [(1, 10)]

            await until(is_counted)


# Documents

DOCUMENT = """
insert into ai.documents (id, collection_id, content) values (%s, %s, %s)
on conflict (id) do update set content = excluded.content
"""
CHUNKS = """
select document_id::text, ordinal, content, embedding::text from ai.chunks order by 1, 2
"""


@pytest.fixture
async def main(installation: Installation, main: AsyncConnection) -> AsyncConnection:
    """With a collection, and a slot."""
    await main.execute("insert into ai.collections (id, name) values (%s, 'all')", [document_id(0)])
    await ensure_slot(main, installation.main.name)
    return main


def document_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


async def put(conn: AsyncConnection, number: int, content: str) -> None:
    await conn.execute(DOCUMENT, [document_id(number), document_id(0), content])


async def test_documents_that_changed_in_a_gap_are_embedded_anew_and_no_others(
    installation: Installation, main: AsyncConnection
) -> None:
    async with indexing(installation, Model()):
        for number in range(1, 6):
            await put(main, number, f"Text {number}. " * 50)
        await until_settled(main)
    slot = installation.main.name
    await drop_slot(main, slot)
    await put(main, 1, "Another text.")
    await main.execute("delete from ai.documents where id = %s", [document_id(2)])
    await put(main, 6, "A new text.")
    await main.execute("delete from ai.documents where id = %s", [document_id(3)])
    await put(main, 3, "Made again.")
    model = Model()
    async with indexing(installation, model):
        await until_settled(main)
    assert sorted(model.texts) == ["A new text.", "Another text.", "Made again."]
    texts = {id_: content for id_, _, content, _ in await fetch(main, CHUNKS)}
    assert texts.keys() == {document_id(number) for number in (1, 3, 4, 5, 6)}
    assert texts[document_id(3)] == "Made again."


async def test_rebuilt_chunks_equal_the_live_ones_and_keep_their_vectors(
    installation: Installation, main: AsyncConnection
) -> None:
    async with indexing(installation, Model()):
        for number in range(1, 4):
            await put(main, number, f"# Head {number}\n\n" + f"Text {number}. " * 200)
        await until_settled(main)
    live = await fetch(main, CHUNKS)
    # As if something had gone wrong, unseen by marks.
    await main.execute(
        "update ai.chunks set content_hash = 'x' where document_id = %s", [document_id(1)]
    )
    await main.execute("delete from ai.chunks where document_id = %s", [document_id(2)])
    await main.execute(
        "insert into ai.chunks overriding system value"
        " select (jsonb_populate_record(c, jsonb_build_object("
        "'id', c.id + 1000, 'document_id', %s::text))).* from ai.chunks c"
        " where document_id = %s and ordinal = 0",
        [document_id(9), document_id(3)],
    )
    await main.execute(
        "insert into ai.index_rows (version_id, key, document_id, done_generation, passage_count)"
        " select version_id, array[%(id)s], %(id)s::uuid, 1, 1 from ai.index_rows limit 1",
        {"id": document_id(9)},
    )
    dsn = installation.cluster.dsn(LoginRole.STREAM, installation.main.name)
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        await renewal.rebuild(conn, Embeddings())
    model = Model()
    async with indexing(installation, model):
        await until_settled(main)
    assert await fetch(main, CHUNKS) == live
    assert {text.partition("\n")[0] for text in model.texts} == {"Head 1", "Head 2"}


async def test_a_gap_is_closed_too_when_the_slot_is_made_anew_under_a_running_projection(
    installation: Installation, control: AsyncConnection
) -> None:
    """Another process may make it, while this one connects again."""
    log = log_of(installation.cluster, installation.control.name)

    async def is_counted() -> bool:
        return await fetch(control, SUMS) == await fetch(control, EXPECTED)

    runner = ProjectionRunner(UsageProjection(), log)
    running = asyncio.create_task(runner.run())
    async with reading(log, Delivering(runner)):
        await insert_call(control)
        await until(is_counted)
    await insert_call(control)
    await drop_slot(control, log.slot)
    await ensure_slot(control, log.slot)
    async with reading(log, Delivering(runner)):
        await insert_call(control)
        await until(is_counted)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await fetch(control, SUMS) == [(3, 30)]


class Delivering:
    """To a runner that runs elsewhere."""

    def __init__(self, runner: ProjectionRunner) -> None:
        self.deliver = runner.deliver
        self.position = runner.position
