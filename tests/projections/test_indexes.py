"""Columns of tables and documents, indexed while they change; on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

import psycopg
import pytest
from msgspec import structs
from psycopg import AsyncConnection

from butterbase.projections.chunking import chunk
from butterbase.projections.embedder import EmbedderError
from butterbase.projections.indexes.indexer import Indexer
from butterbase.sql.cluster import LoginRole
from tests.installation import Installation
from tests.projections.indexing import (
    FAST,
    Model,
    estimated,
    fetch,
    indexing,
    passages,
    until_settled,
    vector_of,
)
from tests.waiting import until

POSTS = """
create table public.posts (id bigint primary key, title text, body text, lang text, views int);
"""


@pytest.fixture
async def conn(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def developer(installation: Installation) -> AsyncIterator[AsyncConnection]:
    installation.as_owner(POSTS)
    dsn = installation.owner_dsn
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield conn


async def found(conn: AsyncConnection, table: str = "index_1") -> list[tuple[object, ...]]:
    rows = await passages(conn, table)
    return [(key, field, content) for key, field, _, content, *_ in rows]


async def test_rows_of_before_and_of_later_have_passages(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    async with indexing(installation, model):
        await developer.execute("insert into posts values (1, 'One', 'The first.', 'en')")
        await developer.execute(
            "select ai.index('public.posts', columns => '{title,body}', filter => '{lang}')"
        )
        await developer.execute("insert into posts values (2, 'Two', null, 'de')")
        await until_settled(conn)
        assert await found(conn) == [
            (1, "body", "The first."),
            (1, "title", "One"),
            (2, "title", "Two"),
        ]
        await developer.execute("update posts set id = 3, title = 'Three' where id = 2")
        await developer.execute("delete from posts where id = 1")
        await until_settled(conn)
        assert await found(conn) == [(3, "title", "Three")]
        assert await fetch(conn, "select metadata from ai.index_1") == [({"lang": "de"},)]
        await developer.execute("truncate posts")
        await until_settled(conn)
        assert await found(conn) == []
        assert await fetch(
            conn,
            "select passage_count, row_count, token_count from"
            " ai.index_versions where index_id = 1",
        ) == [(0, 0, 0)]
        assert await fetch(conn, "select from ai.index_rows where version_id = 1") == []


async def index_posts(developer: AsyncConnection, **options: object) -> None:
    given = "".join(f", {name} => '{value}'" for name, value in options.items())
    statement = f"select ai.index('public.posts', columns => '{{title,body}}'{given})"
    await developer.execute(statement.encode())


def sections(count: int, word: str = "words") -> str:
    """A passage each."""
    return "\n\n".join(f"# Part {n}\n\n" + f"Some {word} of part {n}. " * 20 for n in range(count))


async def test_only_what_changed_is_embedded_anew(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    async with indexing(installation, model):
        await index_posts(developer, filter="{lang}")
        text = sections(6)
        await developer.execute("insert into posts values (1, 'One', %s, 'en', 0)", [text])
        await until_settled(conn)
        assert len(model.texts) == 7
        model.asked.clear()
        changed = text.replace("of part 3", "of part three").replace("# Part 5", "# Part five")
        await developer.execute("update posts set body = %s", [f"A beginning.\n\n{changed}"])
        await until_settled(conn)
        # Each is at another place; what is short before the first heading begins its part.
        assert sorted(text.partition("\n")[0] for text in model.texts) == [
            "A beginning.", "Part 3", "Part five",
        ]  # fmt: skip
        model.asked.clear()
        await developer.execute("update posts set lang = 'de', views = 7")
        await until_settled(conn)
        assert model.texts == []
        assert await fetch(conn, "select distinct metadata from ai.index_1") == [({"lang": "de"},)]
        assert await fetch(
            conn, "select passage_count, row_count from ai.index_versions where index_id = 1"
        ) == [(7, 1)]


async def test_a_text_that_the_log_does_not_repeat_is_indexed_all_the_same(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    await developer.execute("alter table posts alter column body set storage external")
    async with indexing(installation, Model()):
        await index_posts(developer)
        body = sections(40)
        await developer.execute("insert into posts values (1, 'One', %s)", [body])
        await until_settled(conn)
        await developer.execute("update posts set title = 'Two'")
        await until_settled(conn)
        rows = await found(conn)
        assert len(rows) == 41
        assert (1, "title", "Two") in rows


@pytest.mark.parametrize(
    ("table", "columns", "sqlstate"),
    [
        ("create table t (body text)", "body", "42P16"),
        ("create unlogged table t (id int primary key, body text)", "body", "42809"),
        ("create view t as select 1 as id, 'a' as body", "body", "42809"),
        ("create table t (id int primary key, body text)", "", "22023"),
        ("create table t (id int primary key, body text)", "bodi", "42703"),
        ("create table t (id int primary key, body text)", "body,body", "42701"),
        ("create table t (id int primary key, body int)", "body", "42804"),
        ("create table t (id float primary key, body text)", "body", "0A000"),
        (
            "create domain d as int check (value > 0); create domain e as d;"
            "create table t (id e primary key, body text)", "body", "0A000",
        ),
        (
            "create table t (id int primary key, body text);"
            "alter table t replica identity nothing", "body", "55000",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_indexed_is_refused_with_the_reason(
    installation: Installation, table: str, columns: str, sqlstate: str
) -> None:
    installation.as_owner(table)
    with pytest.raises(psycopg.Error) as refusal:
        installation.as_owner(f"select ai.index('public.t', columns => '{{{columns}}}')")
    assert refusal.value.sqlstate == sqlstate


@pytest.mark.parametrize(
    "statement",
    [
        "select ai.index('public.posts', columns => '{title}', chunk_tokens => 3)",
        "select ai.index('public.posts', columns => '{title}', overlap_tokens => 150)",
        "select ai.index('public.posts', columns => '{title}', name => 'a b')",
        "select ai.index('public.posts', columns => '{title}', language => 'klingon')",
        "select ai.index('auth.users', columns => '{email}')",
        "select ai.index(null, columns => '{email}')",
        "select ai.drop_index('none')",
        "select ai.alter_index('none', chunk_tokens => 100)",
    ],
)
async def test_what_makes_no_sense_is_refused(installation: Installation, statement: str) -> None:
    installation.as_owner(POSTS)
    with pytest.raises(psycopg.Error) as refusal:
        installation.as_owner(statement)
    assert refusal.value.sqlstate not in (None, "XX000", "P0001")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_users_make_no_indexes(installation: Installation, role: str) -> None:
    installation.as_owner(POSTS)
    for statement in (
        "select ai.index('public.posts', columns => '{title}')",
        "select ai.begin_version(1)",
        "select ai.drop_index('posts')",
        "select * from ai.index_status()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            installation.as_owner(f"set role {role}; {statement}")


async def test_a_new_version_is_used_when_it_is_complete(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    async with indexing(installation, model):
        await developer.execute(
            "insert into posts select n, 'Title ' || n, %s from generate_series(1, 20) n",
            [sections(2)],
        )
        await index_posts(developer)
        await until_settled(conn)
        gate = asyncio.Event()
        model.before = lambda _: gate.wait()
        await developer.execute("select ai.alter_index('posts', chunk_tokens => 64)")
        await until(lambda: len(model.asked[-1]) > 0)
        status = "select version, state from ai.index_status('posts')"
        await until(lambda: settled_at(developer, status, [(1, "ready"), (2, "building beside")]))
        active = "select active_version from ai.indexes where kind = 'columns'"
        assert await fetch(conn, active) == [(1,)]
        # Both are kept in step meanwhile.
        await developer.execute("delete from posts where id = 1")
        gate.set()
        await until(lambda: settled_at(conn, active, [(2,)]))
        assert await fetch(developer, status) == [(2, "ready")]
        keys = await fetch(conn, "select distinct key_1 from ai.index_2 order by 1")
        assert keys == [(number,) for number in range(2, 21)]
        await until(lambda: settled_at(conn, "select to_regclass('ai.index_1')", [(None,)]))
        await until(
            lambda: settled_at(
                conn, "select from ai.index_versions where index_id = 1 and id = 1", []
            )
        )


async def settled_at(conn: AsyncConnection, query: str, rows: list[tuple[object, ...]]) -> bool:
    return await fetch(conn, query) == rows


async def test_another_model_makes_a_version_and_never_mixes(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    await developer.execute("insert into posts values (1, 'One'), (2, 'Two')")
    async with indexing(installation, Model()):
        await index_posts(developer)
        await until_settled(conn)
    used = (
        "select v.number, v.model, v.dimensions from ai.indexes i"
        " join ai.index_versions v on v.id = i.active_version where i.kind = 'columns'"
    )
    assert await fetch(conn, used) == [(1, "test", 8)]
    async with indexing(installation, Model("other", 12)):
        await developer.execute("update posts set title = 'Three' where id = 1")
        await until(lambda: settled_at(conn, used, [(2, "other", 12)]))
        await until_settled(conn)
    sizes = await fetch(conn, "select distinct extensions.vector_dims(embedding) from ai.index_2")
    assert sizes == [(12,)]
    assert await found(conn, "index_2") == [(1, "title", "Three"), (2, "title", "Two")]


async def test_an_index_that_is_dropped_leaves_nothing(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    async with indexing(installation, Model()):
        await developer.execute("insert into posts values (1, 'One')")
        await index_posts(developer)
        await index_posts(developer, name="again")
        await until_settled(conn)
        await developer.execute("select ai.drop_index('posts')")
        await developer.execute("insert into posts values (2, 'Two')")
        await until_settled(conn)
        assert await fetch(conn, "select to_regclass('ai.index_1')") == [(None,)]
        assert len(await found(conn, "index_2")) == 2
        # Whoever drops the table drops what can be seen of it, and in time all of it.
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            await developer.execute("drop table posts")
        await developer.execute("drop table posts cascade")
        left = "select count(*) from ai.index_rows"
        await until(lambda: settled_at(conn, left, [(0,)]))
        await until(lambda: settled_at(conn, "select to_regclass('ai.index_2')", [(None,)]))


class RefusedError(EmbedderError):
    """Not this text."""

    blames_texts = True


async def fail_on(word: str, error: EmbedderError, texts: Sequence[str]) -> None:
    if any(word in text for text in texts):
        raise error


@pytest.mark.parametrize("error", [RefusedError("no such words"), EmbedderError("it broke")])
async def test_a_text_that_the_model_cannot_take_is_given_up_and_no_other(
    installation: Installation,
    conn: AsyncConnection,
    developer: AsyncConnection,
    error: EmbedderError,
) -> None:
    model = Model()
    model.before = lambda texts: fail_on("poison", error, texts)
    async with indexing(installation, model):
        await index_posts(developer)
        await developer.execute(
            "insert into posts select n, case n when 7 then 'poison' else 'Title' || n end"
            " from generate_series(1, 40) n"
        )
        await until_settled(conn)
        assert len(await found(conn)) == 39
        status = "select rows_done, rows_total, rows_dead, error from ai.index_status()"
        assert await fetch(developer, status) == [(39, 40, 1, None)]
        dead = await fetch(
            conn, "select key, error, attempts from ai.index_rows where error is not null"
        )
        ((key, reason, attempts),) = dead
        assert (key, reason) == (["7"], error.message)
        assert attempts == FAST.attempts_max
        # What is published of it stays while a new state cannot be.
        model.before = lambda _: None
        assert await fetch(developer, "select ai.retry_index('posts')") == [(1,)]
        await until_settled(conn)
        assert len(await found(conn)) == 40
        model.before = lambda texts: fail_on("poison", error, texts)
        await developer.execute("update posts set title = 'more poison' where id = 7")
        await until_settled(conn)
        assert (7, "title", "poison") in await found(conn)


async def test_while_the_model_is_away_nothing_is_given_up(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    model.before = lambda _: fail_on("", EmbedderError("it is away"), [""])
    async with indexing(installation, model):
        await index_posts(developer)
        await developer.execute(
            "insert into posts select n, 'Title ' || n from generate_series(1, 40) n"
        )
        await until(lambda: len(model.asked) > 3 * FAST.attempts_max)
        status = "select rows_pending, rows_dead, error from ai.index_status()"
        assert await fetch(developer, status) == [(40, 0, "it is away")]
        model.before = lambda _: None
        await until_settled(conn)
        assert await fetch(developer, status) == [(0, 0, None)]


async def test_what_changes_now_does_not_wait_for_what_was_there(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    await developer.execute(
        "insert into posts select n, 'Old ' || n from generate_series(1, 3000) n"
    )
    turn = asyncio.Semaphore(0)
    model.before = lambda _: turn.acquire()
    async with indexing(installation, model):
        await index_posts(developer)
        await until(lambda: len(model.asked) == 2)
        await developer.execute("insert into posts values (9000, 'New')")
        waiting = "select from ai.index_rows where key = '{9000}'"
        await until(lambda: settled_at(conn, waiting, [()]))
        for _ in range(4):
            turn.release()
        await until(lambda: "New" in model.texts)
        assert len(model.asked) <= 6
        assert await fetch(developer, "select state from ai.index_status()") == [("building",)]
        model.before = lambda _: None
        for _ in range(4):
            turn.release()
        await until_settled(conn)
        assert len(await found(conn)) == 3001
        status = "select state, rows_done, rows_total from ai.index_status()"
        await until(lambda: settled_at(developer, status, [("ready", 3001, 3001)]))


async def test_vectors_that_were_made_before_a_crash_are_not_made_again(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    turn = asyncio.Semaphore(6)
    model.before = lambda _: turn.acquire()
    limits = structs.replace(FAST, unsaved_max=1)
    await developer.execute("insert into posts values (1, null, %s)", [sections(400)])
    kept = "select count(*) from ai.staged_vectors"
    async with indexing(installation, model, limits):
        await index_posts(developer)
        await until(lambda: settled_at(conn, kept, [(6 * 32,)]))
        progress = "select passages_total, passages_embedded from ai.index_rows"
        assert await fetch(conn, progress) == [(400, 6 * 32)]
    assert await found(conn) == []
    again = Model()
    async with indexing(installation, again):
        await until_settled(conn)
    assert len(again.texts) == 400 - 6 * 32
    assert len(await found(conn)) == 400
    assert await fetch(conn, kept) == [(0,)]


async def test_a_document_is_seen_in_one_state_or_the_other(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    model = Model()
    model.before = lambda _: asyncio.sleep(0)
    counts = (1, 90, 40, 120)
    states = [sections(count, f"state{count}") for count in counts]
    whole = [frozenset({(f"state{count}", count)}) for count in counts]
    seen: set[frozenset[tuple[object, ...]]] = set()

    async def watch() -> None:
        while True:
            rows = await fetch(
                conn,
                "select substring(content from 'state[0-9]+'), count(*) from ai.index_1 group by 1",
            )
            seen.add(frozenset(rows))
            await asyncio.sleep(0)

    async with indexing(installation, model):
        await developer.execute("insert into posts values (1, null, %s)", [states[0]])
        await index_posts(developer)
        await until_settled(conn)
        watching = asyncio.create_task(watch())
        async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as other:
            for body, state in zip(states, whole, strict=True):
                await developer.execute("update posts set body = %s", [body])
                await until_settled(other)
                await until(partial(seen.issuperset, [state]))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert seen == set(whole)


async def test_a_table_that_cannot_be_read_holds_up_its_own_index_alone(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    await developer.execute("create table public.notes (id int primary key, body text)")
    async with indexing(installation, Model()):
        await index_posts(developer)
        await developer.execute("select ai.index('public.notes', columns => '{body}')")
        await until_settled(conn)
        await developer.execute("alter table posts rename column body to text")
        await developer.execute("insert into posts values (1, 'One')")
        await developer.execute("insert into notes values (1, 'A note.')")
        await until(lambda: settled_at(conn, "select content from ai.index_2", [("A note.",)]))
        status = "select error is not null, rows_pending from ai.index_status('posts')"
        await until(lambda: settled_at(developer, status, [(True, 1)]))
        await developer.execute("alter table posts rename column text to body")
        await until_settled(conn)
        assert await found(conn) == [(1, "title", "One")]


async def test_an_index_waits_for_those_who_write_to_its_table(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    async with indexing(installation, Model()):
        async with await AsyncConnection.connect(installation.owner_dsn) as writer:
            await writer.execute("insert into posts values (1, 'One')")
            making = asyncio.create_task(index_posts(developer))
            waiting = (
                "select from pg_stat_activity where wait_event_type = 'Lock'"
                " and query like 'select ai.index(%'"
            )
            await until(lambda: settled_at(conn, waiting, [()]))
            await writer.commit()
        await making
        await until_settled(conn)
        assert await found(conn) == [(1, "title", "One")]


async def test_two_at_once_do_no_harm(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    await developer.execute(
        "insert into posts select n, 'Title ' || n, %s from generate_series(1, 30) n", [sections(3)]
    )
    dsn = installation.cluster.dsn(LoginRole.STREAM, installation.main.name)
    other = Indexer(Model(), estimated, dsn=dsn, owner_dsn=installation.owner_dsn, limits=FAST)
    working = asyncio.create_task(other.run())
    async with indexing(installation, Model()):
        await index_posts(developer)
        for number in range(1, 20):
            await developer.execute(
                "update posts set title = 'New' || id, body = body || 'More.' where id <= %s",
                [number],
            )
        await until_settled(conn)
        await developer.execute("delete from posts where id > 20")
        await until_settled(conn)
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    rows = await fetch(conn, "select id, title, body from posts order by id")
    expected = [
        (id_, field, piece.text)
        for id_, title, body in rows
        for field, text in (("body", body), ("title", title))
        for piece in chunk(text)
    ]
    assert await found(conn) == expected


async def test_many_passages_get_an_index_over_their_vectors(
    installation: Installation, conn: AsyncConnection, developer: AsyncConnection
) -> None:
    limits = structs.replace(FAST, vector_index_min=200)
    async with indexing(installation, Model(), limits):
        await developer.execute(
            "insert into posts select n, 'Title ' || n from generate_series(1, 300) n"
        )
        await index_posts(developer)
        has_one = "select has_vector_index from ai.index_versions where index_id = 1"
        await until(lambda: settled_at(conn, has_one, [(True,)]))
        query = """
            select key_1 from ai.index_1 where version_id = 1
            order by embedding::extensions.halfvec(8)
              operator(extensions.<=>) %s::text::extensions.halfvec(8) limit 1
        """
        vector = str(vector_of("Title 7").tolist())
        await conn.execute("set enable_sort = off")
        assert await fetch(conn, query, vector) == [(7,)]
        plan = "\n".join(line for (line,) in await fetch(conn, f"explain {query}", vector))
        assert "passages_vectors_1" in plan


async def test_a_collection_that_is_cut_otherwise_gets_a_version(
    installation: Installation, conn: AsyncConnection
) -> None:
    async with indexing(installation, Model()):
        await conn.execute("insert into ai.collections (name) values ('all')")
        await conn.execute(
            "insert into ai.documents (collection_id, title, content) select id, 'T', %s"
            " from ai.collections", [sections(4)]
        )  # fmt: skip
        await until_settled(conn)
        versions = "select version_id, count(*) from ai.chunks group by 1"
        assert await fetch(conn, versions) == [(1, 4)]
        await conn.execute("update ai.collections set chunk_tokens = 80 where name = 'all'")

        async def is_swapped() -> bool:
            rows = await fetch(conn, "select active_version from ai.indexes where id = 1")
            return rows != [(1,)] and len(await fetch(conn, versions)) == 1

        await until(is_swapped)
        ((_, count),) = await fetch(conn, versions)
        assert count > 4
        await conn.execute("delete from ai.collections where name = 'all'")
        await until(lambda: settled_at(conn, "select from ai.chunks", []))
        await until(lambda: settled_at(conn, "select from ai.indexes where id = 1", []))
