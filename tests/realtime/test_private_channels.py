"""Private channels: what policies on `realtime.messages` let whom do, asked of a real Postgres."""

import asyncio
from typing import Any

import psycopg
import pytest

from butterbase.realtime.rooms.authorization import Authorization
from butterbase.realtime.session.effects import Permissions
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.cluster import app_authenticator
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor
from tests.installation import Installation
from tests.realtime.channels import TOPIC, enter, heard, send, written
from tests.realtime.streaming import (
    ALICE,
    BOB,
    Phoenix,
    Stream,
    eventually,
    streaming,
    user_claims,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_READABLE = "You do not have permissions to read from this Channel topic: room"

RESET = """
    do $$
    declare made name;
    begin
      for made in select policyname from pg_policies where schemaname = 'realtime' loop
        execute format('drop policy %I on realtime.messages', made);
      end loop;
    end
    $$;
    drop table if exists members;
    create table members (topic text, user_id uuid, primary key (topic, user_id));
    create policy own on members using (user_id = auth.uid());
"""
IS_MEMBER = """
    exists (select from members m where m.topic = realtime.topic() and m.user_id = auth.uid())
"""
READ = f"create policy r on realtime.messages for select to authenticated using ({IS_MEMBER});"
WRITE = (
    f"create policy w on realtime.messages for insert to authenticated with check ({IS_MEMBER});"
)


def joins(user_id: str, topic: str = "room") -> str:
    return f"insert into members values ('{topic}', '{user_id}');"  # noqa: S608  constants


@pytest.fixture
def members(stream: Stream) -> Stream:
    """Alice is a member of the room, and members may read and write."""
    stream.execute(RESET + READ + WRITE + joins(ALICE))
    return stream


async def reply_to_join(client: Phoenix, **payload: Any) -> dict[str, Any]:
    config = {"private": True, **payload.pop("config", {})}
    await client.send(TOPIC, "phx_join", {"config": config, **payload})
    return dict((await client.receive())["payload"])


async def is_silent(client: Phoenix) -> bool:
    """Whether nothing was sent before the answer to a heartbeat."""
    await client.send("phoenix", "heartbeat", {}, "beat")
    return bool((await client.receive())["ref"] == "beat")


async def test_members_talk_and_others_are_kept_out(members: Stream) -> None:
    members.execute(joins(BOB))
    keys = members.keys
    async with (
        members.client(keys.user(ALICE)) as alice,
        members.client(keys.user(BOB), version="2.0.0") as bob,
        members.client() as anon,
    ):
        await enter(alice, private=True)
        await enter(bob, private=True)
        reply = await reply_to_join(anon)
        assert reply["response"]["reason"] == f"Unauthorized: {NOT_READABLE}"
        await send(alice, "hello")
        assert await heard(bob) == "hello"
        await send(bob, "hi")
        assert await heard(alice) == "hi"


async def test_a_public_channel_of_the_same_name_is_another_room(members: Stream) -> None:
    async with (
        members.client(members.keys.user(ALICE)) as inside,
        members.client() as outside,
    ):
        await enter(inside, private=True, presence={"enabled": True})
        await inside.receive()
        await enter(outside, presence={"enabled": True})
        await outside.receive()
        await send(inside, "secret")
        await inside.send(TOPIC, "presence", {"event": "track", "payload": {"a": 1}}, "5")
        assert [(await inside.receive())["event"] for _ in range(2)] == [
            "phx_reply",
            "presence_diff",
        ]
        members.execute("select realtime.send('{}', 'e', 'room')")
        assert await heard(inside)
        await send(outside, "noise")
        await outside.send(TOPIC, "presence", {"event": "track", "payload": {"a": 2}}, "5")
        assert [(await outside.receive())["event"] for _ in range(2)] == [
            "phx_reply",
            "presence_diff",
        ]
        members.execute("select realtime.send('{}', 'e', 'room', false)")
        assert await heard(outside)
        assert await is_silent(inside)


async def test_who_may_read_alone_is_heard_by_nobody(members: Stream) -> None:
    members.execute("drop policy w on realtime.messages;" + joins(BOB))
    async with (
        members.client(members.keys.user(ALICE)) as reader,
        members.client(members.keys.role("service_role")) as writer,
    ):
        await enter(reader, private=True, broadcast={"ack": True})
        await enter(writer, private=True)
        await send(reader, "lost")
        await reader.send(TOPIC, "presence", {"event": "track", "payload": {}}, "5")
        reply = await reader.receive()
        assert (reply["ref"], reply["payload"]["status"]) == ("5", "error")
        await send(writer, "kept")
        assert await heard(reader) == "kept"
        assert await is_silent(writer)


async def test_policies_tell_the_extensions_apart(stream: Stream) -> None:
    stream.execute(
        RESET + "create policy r on realtime.messages for select to authenticated"
        " using (realtime.messages.extension = 'presence');"
        "create policy w on realtime.messages for insert to authenticated"
        " with check (extension = 'presence' and topic = realtime.topic() and private)"
    )
    async with (
        stream.client(stream.keys.user(ALICE)) as alice,
        stream.client(stream.keys.role("service_role")) as service,
    ):
        reply = await reply_to_join(alice)
        assert reply["status"] == "error"
        await enter(alice, private=True, presence={"enabled": True})
        assert (await alice.receive())["event"] == "presence_state"
        await enter(service, private=True, broadcast={"self": True})
        await send(service, "not for her")
        assert await heard(service) == "not for her"
        await send(alice, "not from her")
        await alice.send(TOPIC, "presence", {"event": "track", "payload": {"a": 1}}, "5")
        assert [(await alice.receive())["event"] for _ in range(2)] == [
            "phx_reply",
            "presence_diff",
        ]
        assert await is_silent(service)


async def test_a_new_token_that_may_not_read_closes_the_channel(members: Stream) -> None:
    async with members.client(members.keys.user(ALICE)) as client:
        await enter(client, private=True)
        await client.send(TOPIC, "access_token", {"access_token": members.keys.user(BOB)})
        system, closed = await client.receive(), await client.receive()
    assert system["payload"] == {
        "extension": "system",
        "status": "error",
        "message": NOT_READABLE,
        "channel": "room",
    }
    assert closed["event"] == "phx_close"


async def test_a_new_token_that_may_write_is_asked_about_anew(members: Stream) -> None:
    members.execute(
        "drop policy r on realtime.messages;"
        "create policy r on realtime.messages for select to authenticated using (true)"
    )
    keys = members.keys
    async with members.client(keys.user(BOB)) as client:
        await enter(client, private=True, broadcast={"ack": True})
        await client.send(TOPIC, "presence", {"event": "track", "payload": {}}, "5")
        assert (await client.receive())["payload"]["status"] == "error"
        await client.send(TOPIC, "access_token", {"access_token": keys.user(ALICE)})
        await client.send(TOPIC, "presence", {"event": "track", "payload": {}}, "6")
        events = [(await client.receive())["event"] for _ in range(3)]
    assert events == ["presence_state", "phx_reply", "presence_diff"]


FAILING = {
    "raises an error": "(1 / (select count(*) from members where false)) = 1",
    "has a wrong cast": "realtime.topic()::int = 1",
    "takes too long": "(select pg_sleep(60)) is null",
    "reads what is not there": "current_setting('nothing.at.all') = ''",
}


@pytest.mark.parametrize("expression", FAILING.values(), ids=FAILING)
async def test_a_policy_that_fails_lets_nobody_in(app: Installation, expression: str) -> None:
    dsn = app.cluster.dsn(app_authenticator("main"), app.main.name, statement_timeout_ms=200)
    executor = Executor(dsn)
    policies = Authorization(executor, RealtimeSettings())
    app.as_owner(
        RESET + f"create policy r on realtime.messages for select using ({expression});"
        f"create policy w on realtime.messages for insert with check ({expression})"
    )
    try:
        with pytest.raises(DatabaseError):
            await policies.admit(user_claims(ALICE), "room", None)
        with pytest.raises(DatabaseError):
            await policies.may_write(user_claims(ALICE), "room", "broadcast")
    finally:
        await executor.close()


async def test_failing_policies_refuse_joins_and_drop_messages(members: Stream) -> None:
    keys = members.keys
    async with members.client(keys.user(ALICE)) as client:
        await enter(client, private=True, broadcast={"ack": True})
        members.execute(
            "drop policy w on realtime.messages; create policy w on realtime.messages"
            " for insert with check (realtime.topic()::int = 1);"
            "create policy r2 on realtime.messages for select using (realtime.topic()::int = 1)"
        )
        await send(client, 1)
        assert await is_silent(client)
        async with members.client(keys.user(ALICE)) as other:
            reply = await reply_to_join(other)
        assert reply["response"]["reason"] == f"Unauthorized: {NOT_READABLE}"
        await client.send(TOPIC, "access_token", {"access_token": keys.user(ALICE)})
        assert (await client.receive())["payload"]["message"] == NOT_READABLE


async def test_claims_are_known_to_policies_in_all_their_forms(app: Installation) -> None:
    executor = Executor(app.cluster.dsn(app_authenticator("main"), app.main.name))
    policies = Authorization(executor, RealtimeSettings())
    app.as_owner(
        RESET + "create policy r on realtime.messages for select to authenticated using ("
        " current_setting('request.jwt.claim.sub', true) = auth.uid()::text"
        " and current_setting('request.jwt.claim.role', true) = 'authenticated'"
        " and (current_setting('request.jwt.claims', true)::json ->> 'sub')::uuid = auth.uid()"
        " and current_setting('request.headers', true)::json is not null"
        " and auth.jwt() ->> 'level' = 'gold' and realtime.topic() = topic)"
    )
    try:
        gold = user_claims(ALICE, level="gold")
        admission = await policies.admit(gold, "a'b\"c", None)
        assert admission.permissions == Permissions(True, True)
        admission = await policies.admit(user_claims(ALICE), "room", None)
        assert admission.permissions == Permissions(False, False)
    finally:
        await executor.close()


async def test_questions_leave_nothing_behind(members: Stream) -> None:
    async with members.client(members.keys.user(ALICE)) as client:
        await enter(client, private=True, broadcast={"ack": True})
        await send(client, 1)
        await client.receive()
        with psycopg.connect(members.installation.main.dsn) as conn:
            kept = "select count(*) from realtime.messages where payload is null"
            assert conn.execute(kept).fetchone() == (0,)


async def test_a_join_that_is_left_while_policies_are_asked_is_never_answered(
    app: Installation,
) -> None:
    app.as_owner(
        RESET + "create policy r on realtime.messages for select using"
        " ((select pg_advisory_xact_lock_shared(7)) is not null)"
    )
    async with streaming(app) as stream, stream.client(stream.keys.user(ALICE)) as client:
        with psycopg.connect(app.main.dsn) as conn:
            conn.execute("select pg_advisory_xact_lock(7)")
            await client.send(TOPIC, "phx_join", {"config": {"private": True}})
            waiting = (
                "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
            )
            with psycopg.connect(app.main.dsn, autocommit=True) as other:
                await eventually(lambda: other.execute(waiting).fetchone() == (True,))
            await client.send(TOPIC, "phx_leave", {}, "2")
            assert [(await client.receive())["event"] for _ in range(2)] == [
                "phx_reply",
                "phx_close",
            ]
        assert await is_silent(client)
        assert len(stream.rooms) == 0


async def test_many_joins_at_once_are_all_answered(members: Stream) -> None:
    keys = members.keys
    async with members.client(keys.user(ALICE)) as client:
        topics = [f"realtime:{n}" for n in range(60)]
        members.execute("".join(joins(ALICE, str(n)) for n in range(0, 60, 2)))
        await asyncio.gather(
            *(
                client.send(topic, "phx_join", {"config": {"private": True}}, topic, topic)
                for topic in topics
            )
        )
        statuses = {}
        for _ in topics:
            message = await client.receive()
            statuses[message["topic"]] = message["payload"]["status"]
    assert statuses == {t: "error" if n % 2 else "ok" for n, t in enumerate(topics)}


async def test_the_sql_of_the_page_does_what_it_says(installation: Installation) -> None:
    installation.as_owner(written("Private channels", "sql"))
    installation.as_owner(f"insert into rooms_users values ('room', '{ALICE}')")  # noqa: S608
    async with (
        streaming(installation) as stream,
        stream.client(stream.keys.user(ALICE)) as member,
        stream.client() as public,
    ):
        await enter(member, private=True)
        await enter(public)
        installation.as_owner(written("From the database", "sql"))
        assert (await heard(member))["text"] == (await heard(public))["text"] == "hello"
        post = await heard(member)
    assert (post["operation"], post["record"]["body"]) == ("INSERT", "hello")
