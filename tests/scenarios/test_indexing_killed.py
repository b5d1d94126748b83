"""The process that keeps indexes is killed, again and again, while rows and documents change.

In the end the indexes are what they would be if they were made from scratch.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from psycopg import AsyncConnection, errors, sql

from butterbase.cli.setup import PUBLICATION
from butterbase.ingest.slot import ensure_slot
from butterbase.projections.chunking import chunk, content_hash
from butterbase.sql.cluster import LoginRole
from tests.installation import Installation
from tests.projections.indexing import fetch, passages, until_settled, vector_of
from tests.waiting import until

KILL_COUNT = int(os.environ.get("BUTTERBASE_FUZZ_ROUNDS", "6"))
SEED = int(os.environ.get("BUTTERBASE_FUZZ_SEED", random.randrange(1_000_000)))  # noqa: S311

TABLES = """
create table public.posts (id bigint, part text, title text, body text, lang text,
  primary key (id, part));
create schema notes;
create table notes.notes (id uuid primary key default gen_random_uuid(), body text);
"""
COLLECTION = "00000000-0000-4000-8000-000000000001"
ACTIVE = "select active from pg_replication_slots where slot_name = current_database()"
WORDS = ["whale", "train", "leaves", "at", "nine", "the", "Postgres", "数据库", "🦊", "'quoted'"]


class Processes:
    """One at a time."""

    def __init__(self, installation: Installation) -> None:
        database = installation.main.name
        self._environment = dict(os.environ) | {
            "DSN": installation.cluster.dsn(LoginRole.STREAM, database),
            "OWNER_DSN": installation.owner_dsn,
        }
        self._arguments = ["-m", "tests.scenarios.indexing_process", database, PUBLICATION]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, *self._arguments]
        self._process = subprocess.Popen(command, env=self._environment)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
async def conn(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def processes(installation: Installation) -> Iterator[Processes]:
    processes = Processes(installation)
    yield processes
    processes.kill()


class Writer:
    """Random changes, committed or not, until cancelled."""

    def __init__(self, installation: Installation, chance: random.Random) -> None:
        self._installation, self._chance = installation, chance
        self.change_count = 0

    def _text(self) -> str | None:
        length = self._chance.choice([0, 3, 30, 30, 1_000])
        words = " ".join(self._chance.choice(WORDS) for _ in range(length))
        return self._chance.choice([f"# Head\n\n{words}", words, words, None])

    async def write(self) -> None:
        chance = self._chance
        async with await AsyncConnection.connect(self._installation.main.dsn) as conn:
            while True:
                try:
                    for _ in range(chance.choice([1, 1, 3])):
                        await self._change(conn)
                    await (conn.rollback() if chance.random() < 0.1 else conn.commit())
                except errors.DeadlockDetected:
                    await conn.rollback()  # with the other writer
                await asyncio.sleep(chance.uniform(0, 0.02))

    async def _change(self, conn: AsyncConnection) -> None:
        self.change_count += 1
        chance = self._chance
        key = {"id": chance.randrange(30), "part": chance.choice("ab")}
        values = {**key, "title": self._text(), "body": self._text(), "new": chance.randrange(30)}
        document = f"00000000-0000-4000-8000-{chance.randrange(12):012d}"
        values |= {"document": document, "collection": COLLECTION}
        values["lang"] = chance.choice(["en", "de"])
        await conn.execute(
            chance.choice(
                [
                    "insert into public.posts values (%(id)s, %(part)s, %(title)s, %(body)s, 'en')"
                    " on conflict (id, part) do update set body = excluded.body",
                    "update public.posts set title = %(title)s where id = %(id)s",
                    "update public.posts set lang = %(lang)s where id = %(id)s",
                    "update public.posts set id = %(new)s where id = %(id)s and part = %(part)s"
                    " and not exists (select from public.posts"
                    " where id = %(new)s and part = %(part)s)",
                    "delete from public.posts where id = %(id)s",
                    "insert into notes.notes (body) values (%(body)s)",
                    "delete from notes.notes where id = (select id from notes.notes limit 1)",
                    "insert into ai.documents (id, collection_id, content) values"
                    " (%(document)s, %(collection)s, coalesce(%(body)s, ''))"
                    " on conflict (id) do update set content = excluded.content || %(lang)s",
                    "update ai.documents set metadata = '{\"a\": 1}' where id = %(document)s",
                    "delete from ai.documents where id = %(document)s",
                ]
            ),
            values,
        )


async def is_read(conn: AsyncConnection) -> bool:
    return await fetch(conn, ACTIVE) == [(True,)]


async def is_free(conn: AsyncConnection) -> bool:
    return await fetch(conn, ACTIVE) == [(False,)]


async def documents(conn: AsyncConnection) -> list[tuple[Any, ...]]:
    """What the passages of all documents should be."""
    rows = await fetch(conn, "select id, content, metadata from ai.documents order by id")
    return [
        (id_, "content", c.ordinal, c.text, c.heading, c.start, c.end, content_hash(c), metadata)
        for id_, content, metadata in rows
        for c in chunk(content)
    ]


async def test_killed_at_any_point_an_index_becomes_what_it_would_be_from_scratch(
    installation: Installation, conn: AsyncConnection, processes: Processes
) -> None:
    print("seed", SEED)  # noqa: T201  shown when the test fails
    chance = random.Random(SEED)  # noqa: S311  guards nothing
    await ensure_slot(conn, installation.main.name)
    installation.as_owner(TABLES)
    await conn.execute("insert into ai.collections (id, name) values (%s, 'all')", [COLLECTION])
    writer = Writer(installation, chance)
    writers = [asyncio.create_task(writer.write()) for _ in range(2)]
    until_count = 100
    await until(lambda: writer.change_count > until_count)
    # One is made while all changes; its schema is published by it alone. In a thread: it waits for
    # the writers.
    for index in ("'public.posts', columns => '{title,body}', filter => '{lang}'",
                  "'notes.notes', columns => '{body}'"):  # fmt: skip
        await asyncio.to_thread(installation.as_owner, f"select ai.index({index})")
    for _ in range(KILL_COUNT):
        processes.start()
        await until(lambda: is_read(conn))
        await asyncio.sleep(chance.uniform(0, 1.5))
        processes.kill()
        await until(lambda: is_free(conn))
    processes.start()
    for task in writers:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await until_settled(conn)
    for index in ("'public.posts', name => 'p', columns => '{title,body}', filter => '{lang}'",
                  "'notes.notes', name => 'n', columns => '{body}'"):  # fmt: skip
        await asyncio.to_thread(installation.as_owner, f"select ai.index({index})")
    await until_settled(conn)
    tables = await fetch(
        conn, "select v.passages from ai.index_versions v join ai.indexes i on i.id = v.index_id"
        " where i.kind = 'columns' order by v.id"
    )  # fmt: skip
    posts, notes, posts_anew, notes_anew = (name for (name,) in tables)
    live = await passages(conn, posts, "key_1, key_2")
    assert live
    assert live == await passages(conn, posts_anew, "key_1, key_2")
    assert await passages(conn, notes) == await passages(conn, notes_anew)
    stored = await passages(conn, "chunks", "document_id")
    assert [tuple(row) for *row, _ in stored] == await documents(conn)
    for _, _, _, content, heading, *_, embedding in stored:
        vector = vector_of(f"{heading}\n{content}" if heading else content)
        assert np.allclose([float(x) for x in embedding[1:-1].split(",")], vector, atol=1e-5)
    assert await fetch(conn, "select from ai.staged_vectors") == []
    counts = (
        "select passage_count, token_count, row_count from ai.index_versions where passages = %s"
    )
    ((passage_count, token_count, row_count),) = await fetch(conn, counts, posts)
    assert passage_count == len(live)
    total = sql.SQL("select sum(tokens) from ai.{}").format(sql.Identifier(posts))
    assert await (await conn.execute(total)).fetchone() == (token_count,)
    rows = await fetch(conn, "select count(*) from public.posts")
    assert rows == [(row_count,)]
