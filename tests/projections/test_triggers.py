"""Changes of tables become invocations that wait, each once."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg import AsyncConnection

from butterbase.cli.followed_log import log_at
from butterbase.cli.setup import set_up, slot_name
from butterbase.ingest.rereading import Log
from butterbase.projections.runner import ProjectionRunner
from butterbase.projections.triggers import Triggers
from butterbase.sql.cluster import LoginRole
from tests.installation import Installation
from tests.projections.following import reading
from tests.waiting import until

TABLES = """
create type public.mood as enum ('glad', 'sad');
create domain public.word as text check (value <> '');
create table public.orders (
  id int primary key, status text, amount numeric, mood public.mood, word public.word, note text
);
create table public.plain (name text, n int);
create table public.whole (id int primary key, a text, b text);
alter table public.whole replica identity full;
"""
FUNCTION = "insert into functions.functions (name, timeout_ms, memory_mb) values ('f', 1000, 64)"
TRIGGER = """
insert into functions.triggers (function_id, name, kind, config, attempts_max)
select id, %s, 'database', %s, 5 from functions.functions where name = 'f' returning id
"""
ROWS = """
select t.name, i.payload, i.key, i.ordinal, i.lsn::text
from functions.invocations i join functions.triggers t on t.id = i.trigger_id order by i.seq
"""


class Following:
    """A stream that runs the projection, over the app's database."""

    def __init__(self, conn: AsyncConnection, log: Log) -> None:
        self.conn = conn
        self.log = log

    async def trigger(self, name: str, **config: Any) -> None:
        await self.conn.execute(TRIGGER, [name, json.dumps(config)])

    async def rows(self) -> list[tuple[Any, ...]]:
        return await (await self.conn.execute(ROWS)).fetchall()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with reading(self.log, ProjectionRunner(Triggers(), self.log)):
            yield

    async def settled(self) -> list[tuple[Any, ...]]:
        """The rows, once all that was committed has been applied."""
        await self.conn.execute("insert into public.done default values")

        async def is_done() -> bool:
            return any(row[0] == "done" for row in await self.rows())

        await until(is_done)
        found = [row for row in await self.rows() if row[0] != "done"]
        await self.conn.execute(
            "delete from functions.invocations i using functions.triggers t"
            " where t.id = i.trigger_id and t.name = 'done'"
        )
        return found


@pytest.fixture
async def following(installation: Installation) -> AsyncIterator[Following]:
    await set_up(installation.cluster, database=installation.main.name)
    installation.as_owner(TABLES)
    log = log_at(
        installation.cluster.dsn(LoginRole.STREAM, installation.main.name), installation.main.name
    )
    assert log.slot == slot_name(installation.main.name)
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        await conn.execute("create table public.done (id int generated always as identity)")
        await conn.execute(FUNCTION)
        found = Following(conn, log)
        await found.trigger("done", table="done")
        yield found


async def test_a_change_is_told_as_it_was_made(following: Following) -> None:
    await following.trigger("orders", table="orders")
    async with following.running():
        await following.conn.execute(
            "insert into orders values (1, 'new', 12.50, 'glad', 'w', null)"
        )
        await following.conn.execute("update orders set status = 'paid' where id = 1")
        await following.conn.execute("delete from orders where id = 1")
        made, paid, gone = [row[1] for row in await following.settled()]
    assert {k: made[k] for k in ("type", "schema", "table", "record", "old_record")} == {
        "type": "INSERT",
        "schema": "public",
        "table": "orders",
        "record": {
            "id": 1, "status": "new", "amount": 12.5, "mood": "glad", "word": "w", "note": None,
        },
        "old_record": None,
    }  # fmt: skip
    assert (paid["type"], paid["record"]["status"], paid["old_record"]) == (
        "UPDATE",
        "paid",
        {"id": 1},
    )
    assert (gone["type"], gone["record"], gone["old_record"]) == ("DELETE", None, {"id": 1})
    assert made["commit_timestamp"].endswith("Z")
    assert made["position"].endswith("/1")


FILTERS = {
    "status=eq.paid": {2},
    "status=neq.paid": {1},
    "status=not.eq.paid": {1},
    "status=in.(paid,new)": {1, 2},
    "status=is.null": {3},
    "status=isdistinct.paid": {1, 3},
    "amount=gt.9.5": {2},
    "amount=lte.9.50,status=eq.new": {1},
    "mood=eq.sad": {2},
    "mood=lt.sad": {1},
    "word=eq.x": {3},
    "status=like.p%": {2},
    "status=imatch.^N": {1},
    "": {1, 2, 3},
}


async def test_filters_are_postgres_own(following: Following) -> None:
    for place, text in enumerate(FILTERS):
        await following.trigger(f"t{place}", table="orders", filter=text)
    async with following.running():
        await following.conn.execute(
            "insert into orders values (1, 'new', 9.5, 'glad', 'w', null),"
            " (2, 'paid', 10, 'sad', 'v', '%'), (3, null, null, null, 'x', null)"
        )
        rows = await following.settled()
    for place, (text, ids) in enumerate(FILTERS.items()):
        found = {row[1]["record"]["id"] for row in rows if row[0] == f"t{place}"}
        assert found == ids, text


async def test_events_and_columns_are_those_that_are_asked_for(following: Following) -> None:
    await following.trigger("made", table="whole", events=["INSERT"])
    await following.trigger("a", table="whole", events=["UPDATE"], columns=["a"])
    async with following.running():
        conn = following.conn
        await conn.execute("insert into whole values (1, 'x', 'y')")
        await conn.execute("update whole set b = 'z'")
        await conn.execute("update whole set a = 'w'")
        rows = await following.settled()
    assert [row[0] for row in rows] == ["made", "a"]
    assert rows[1][1]["record"]["a"] == "w"
    assert rows[1][1]["old_record"]["a"] == "x"


async def test_ordered_changes_have_the_key_of_their_row(following: Following) -> None:
    await following.trigger("o", table="orders", ordered=True)
    await following.trigger("p", table="plain", ordered=True)
    async with following.running():
        conn = following.conn
        await conn.execute("insert into orders (id, word) values (1, 'a'), (2, 'b')")
        await conn.execute("update orders set id = 3 where id = 2")
        await conn.execute("insert into plain values ('a', 1), ('b', 2)")
        rows = await following.settled()
    assert [(row[0], row[2]) for row in rows] == [
        ("o", '["1"]'),
        ("o", '["2"]'),
        ("o", '["3"]'),
        ("p", "[]"),
        ("p", "[]"),
    ]


async def test_what_was_committed_before_the_trigger_is_not_its_own(following: Following) -> None:
    await following.conn.execute("insert into orders (id, word) values (1, 'a')")
    await following.trigger("late", table="orders")
    await following.conn.execute("insert into orders (id, word) values (2, 'a')")
    async with following.running():
        rows = await following.settled()
        assert [row[1]["record"]["id"] for row in rows] == [2]


async def test_a_trigger_that_is_made_while_the_log_is_read_misses_nothing(
    following: Following,
) -> None:
    async with following.running():
        await following.settled()
        for number in range(20):
            await following.conn.execute("truncate functions.invocations")
            await following.conn.execute("delete from functions.triggers where name <> 'done'")
            await following.trigger(f"t{number}", table="whole")
            await following.conn.execute("insert into whole values (%s)", [number])
            rows = await following.settled()
            assert [row[0] for row in rows] == [f"t{number}"]


async def test_a_filter_that_fails_holds_nobody_up(following: Following) -> None:
    await following.trigger("bad", table="orders", filter="status=gt.5")
    async with following.running():
        conn = following.conn
        await conn.execute("insert into orders (id, status, word) values (1, '7', 'a')")
        assert [row[0] for row in await following.settled()] == ["bad"]
        await conn.execute(
            "update functions.triggers set config = config || %s where name = 'bad'",
            ['{"filter": "amount=gt.x"}'],
        )
        await conn.execute("insert into orders (id, status, word) values (2, '7', 'a')")
        assert len(await following.settled()) == 1
        row = await (
            await conn.execute("select last_error from functions.triggers where name = 'bad'")
        ).fetchone()
    assert row is not None
    assert "invalid input syntax for type numeric" in row[0]


async def test_secrets_of_users_are_not_told(following: Following) -> None:
    await following.trigger("users", table="users", schema="auth")
    async with following.running():
        await following.conn.execute(
            "insert into auth.users (email, encrypted_password) values ('a@b.c', 'hash')"
        )
        rows = await following.settled()
    record = rows[0][1]["record"]
    assert record["email"] == "a@b.c"
    assert "encrypted_password" not in record
    assert "hash" not in json.dumps(record)


async def test_a_commit_that_comes_again_invokes_nobody_again(following: Following) -> None:
    await following.trigger("orders", table="orders")
    async with following.running():
        await following.conn.execute("insert into orders (id, word) values (1, 'a')")
        before = await following.settled()
    async with following.running():  # from where the slot is acknowledged
        assert await following.settled() == before


async def test_a_large_commit_is_told_in_order(following: Following) -> None:
    await following.trigger("whole", table="whole", filter="a=eq.1")
    async with following.running():
        await following.conn.execute(
            "insert into whole select i, (i % 2)::text from generate_series(1, 3000) i"
        )
        rows = await following.settled()
    assert [row[1]["record"]["id"] for row in rows] == list(range(1, 3001, 2))
    assert [row[3] for row in rows] == list(range(1, 3001, 2))
