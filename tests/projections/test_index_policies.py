"""Who sees which passages: those who may see the rows that they are of."""

import json
import random
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from tests.installation import Installation
from tests.projections.indexing import Model, fetch, indexing, until_settled, vector_of
from tests.waiting import until

ANA, BO = UUID(int=1), UUID(int=2)
QUERY_COUNT = 10_000

POSTS = """
create table public.posts (id bigint primary key, user_id uuid, title text, body text);
create policy own on public.posts for select to authenticated using (user_id = auth.uid());
"""
BY_VECTOR = """
select content from ai.{table} where {version}
order by embedding operator(extensions.<=>) '{vector}'::extensions.vector limit 5
"""
BY_WORDS = """
select content from ai.{table}
where {version} and terms operator(ai.@@) $$'{id}:{word}'$$::tsquery limit 5
"""


@pytest.fixture
async def conn(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def caller(installation: Installation) -> AsyncIterator[AsyncConnection]:
    dsn = installation.owner_dsn
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield conn


async def become(conn: AsyncConnection, user: UUID | None, role: str = "authenticated") -> None:
    claims = json.dumps({"sub": str(user), "role": role} if user else {"role": role})
    await conn.execute(
        "select set_config('role', %s, false), set_config('request.jwt.claims', %s, false)",
        [role, claims],
    )


async def ask(
    conn: AsyncConnection, table: str, version: int, chance: random.Random, count: int
) -> list[str]:
    """The contents of all passages that so many questions find."""
    found: list[str] = []
    for _ in range(count // 100):
        cursors = []
        async with conn.pipeline():
            for _ in range(100):
                statement = chance.choice([BY_VECTOR, BY_WORDS]).format(
                    table=table,
                    version=f"version_id = {version}",
                    id=version,
                    vector=[round(x, 6) for x in vector_of(str(chance.random())).tolist()],
                    word=chance.choice(["whale", "train", "ana", "bo", "leav"]),
                )
                cursors.append(await conn.execute(statement.encode()))
        for cursor in cursors:
            found += [content for (content,) in await cursor.fetchall()]
    return found


async def test_ten_thousand_questions_find_no_passage_of_anothers_row(
    installation: Installation, conn: AsyncConnection, caller: AsyncConnection
) -> None:
    installation.as_owner(POSTS)
    await conn.execute(
        "insert into public.posts select n, case n %% 2 when 0 then %(ana)s else %(bo)s end,"
        " 'whale ' || n, 'The train leaves. Of ' || case n %% 2 when 0 then 'ana' else 'bo' end"
        " from generate_series(1, 200) n",
        {"ana": ANA, "bo": BO},
    )
    await conn.execute("insert into ai.collections (name, owner_id) values ('a', %s)", [ANA])
    await conn.execute("insert into ai.collections (name, owner_id) values ('b', %s)", [BO])
    await conn.execute(
        "insert into ai.documents (collection_id, owner_id, content) select c.id, c.owner_id,"
        " 'The whale leaves. Of ' || case c.name when 'a' then 'ana' else 'bo' end"
        " from ai.collections c, generate_series(1, 50)"
    )
    async with indexing(installation, Model()):
        installation.as_owner("select ai.index('public.posts', columns => '{title,body}')")
        await until_settled(conn)
    tables = await fetch(conn, "select passages, id from ai.index_versions order by id")
    chance = random.Random(7)  # noqa: S311  guards nothing
    each = QUERY_COUNT // len(tables) // 2
    for user, name, other in ((ANA, "ana", "bo"), (BO, "bo", "ana")):
        await become(caller, user)
        for table, version in tables:
            found = await ask(caller, table, version, chance, each)
            assert not any(f"Of {other}" in content for content in found)
            numbers = [int(content.split()[1]) for content in found if content[:6] == "whale "]
            assert all((number % 2 == 0) == (name == "ana") for number in numbers)
            mine = await fetch(
                conn,
                "select from ai.collections c join ai.indexes i on i.collection_id = c.id"
                " where i.active_version = %s and c.owner_id <> %s",
                version,
                user,
            )
            assert bool(found) == (not mine)
    await become(caller, None, "anon")
    assert await ask(caller, tables[-1][0], tables[-1][1], chance, 100) == []


async def test_whoever_may_not_read_a_column_finds_nothing_of_it(
    installation: Installation, conn: AsyncConnection, caller: AsyncConnection
) -> None:
    installation.as_owner(POSTS)
    await conn.execute("insert into public.posts values (1, %s, 'A title', 'A body')", [ANA])
    async with indexing(installation, Model()):
        installation.as_owner("select ai.index('public.posts', columns => '{title,body}')")
        await until_settled(conn)
    await become(caller, ANA)
    assert len(await fetch(caller, "select from ai.index_1")) == 2
    installation.as_owner(
        "revoke select on public.posts from authenticated;"
        "grant select (id, user_id, title) on public.posts to authenticated"
    )
    assert await fetch(caller, "select from ai.index_1") == []
    installation.as_owner("revoke select on public.posts from authenticated")
    assert await fetch(caller, "select from ai.indexes") == []


async def is_found(conn: AsyncConnection, query: str) -> bool:
    return bool(await fetch(conn, query))


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", None])
async def test_nobody_writes_passages(
    installation: Installation, conn: AsyncConnection, caller: AsyncConnection, role: str | None
) -> None:
    installation.as_owner(POSTS)
    installation.as_owner("select ai.index('public.posts', columns => '{title}')")
    if role is not None:
        await become(caller, ANA, role)
    for table in ("index_1", "chunks", "index_rows", "staged_vectors", "index_versions", "indexes"):
        for statement in ("delete from ai.{}", "truncate ai.{}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await caller.execute(sql.SQL(statement).format(sql.Identifier(table)))


async def test_of_a_custom_collection_a_function_of_the_developers_decides(
    installation: Installation, conn: AsyncConnection, caller: AsyncConnection
) -> None:
    installation.as_owner(
        "create function public.may_read(document ai.documents) returns boolean language sql stable"
        " as $$ select document.metadata ->> 'reader' = auth.uid()::text $$"
    )
    await conn.execute(
        "insert into ai.collections (name, owner_id, access_mode, read_policy)"
        " values ('c', %s, 'custom', 'public.may_read'), ('d', %s, 'custom', 'public.none')",
        [ANA, ANA],
    )
    await conn.execute(
        "insert into ai.documents (collection_id, owner_id, content, metadata)"
        " select id, owner_id, 'for ' || reader || ' in ' || name,"
        "   jsonb_build_object('reader', reader)"
        " from ai.collections, (values (%s::text), ('another')) r (reader)",
        [str(BO)],
    )
    async with indexing(installation, Model()):
        await until_settled(conn)
    found = {}
    for user in (ANA, BO, UUID(int=3)):
        await become(caller, user)
        rows = await fetch(caller, "select content from ai.chunks order by 1")
        found[user] = [content for (content,) in rows]
    assert [len(found[user]) for user in (ANA, BO, UUID(int=3))] == [4, 1, 0]
    assert found[BO] == [f"for {BO} in c"]


async def test_a_developers_code_on_a_source_runs_as_the_developer(
    installation: Installation, conn: AsyncConnection
) -> None:
    """Neither a policy nor a trigger of theirs comes to run with our rights."""
    installation.as_owner(
        "create table public.seen (who text);"
        "alter table public.seen disable row level security;"
        "grant all on public.seen to public;"
        "create table public.posts (id bigint primary key, body text);"
        "create function public.spy() returns boolean language plpgsql as"
        " $$ begin insert into public.seen values (current_user); return true;"
        " exception when others then return true; end $$;"
        "create policy all_see on public.posts using (public.spy());"
        "create policy spied on public.posts as restrictive using (public.spy());"
        "alter table public.posts force row level security;"
    )
    await conn.execute("insert into public.posts values (1, 'A body')")
    async with indexing(installation, Model()):
        installation.as_owner("select ai.index('public.posts', columns => '{body}')")
        error = "select error from ai.index_versions where index_id = 1 and error is not null"
        await until(lambda: is_found(conn, error))
        # Its owner is subject to policies: not all rows are to be seen, which is told.
        ((reason,),) = await fetch(conn, error)
        assert "row-level security" in reason
        installation.as_owner("alter table public.posts no force row level security")
        await until_settled(conn)
    assert await fetch(conn, "select content from ai.index_1") == [("A body",)]
    roles = await fetch(conn, "select who from public.seen where who like 'butterbase%'")
    assert roles == []
