"""Messages from the database: what is committed is sent, kept, and replayed."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.errors import (
    InsufficientPrivilege,
    NullValueNotAllowed,
    ProgramLimitExceeded,
    RaiseException,
)

from butterbase.realtime.rooms.logged_broadcasts import EmittedMessage, encode_emitted
from tests.installation import Installation
from tests.realtime.channels import TOPIC, enter, heard, read_broadcast
from tests.realtime.streaming import DEADLINE_S, Phoenix, Stream, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYBODY = """
    truncate realtime.messages;
    drop policy if exists r on realtime.messages;
    create policy r on realtime.messages for select to anon, authenticated using (true);
"""
PRIVATE = {"private": True}


@pytest.fixture
def open_rooms(stream: Stream) -> Stream:
    """Anybody may read; nothing is kept yet."""
    stream.execute(EVERYBODY)
    return stream


def send(payload: Any, event: str = "e", topic: str = "room", *, private: bool = True) -> str:
    return f"select realtime.send('{json.dumps(payload)}', '{event}', '{topic}', {private});"


async def message(client: Phoenix) -> dict[str, Any]:
    """The next broadcast of a client of version 1."""
    received = await client.receive()
    assert (received["event"], received["topic"]) == ("broadcast", TOPIC), received
    return dict(received["payload"])


async def test_a_committed_message_reaches_its_room_with_its_id(open_rooms: Stream) -> None:
    async with open_rooms.client() as client:
        await enter(client, private=True)
        open_rooms.execute(send({"n": 1}))
        got = await message(client)
    id_ = got["meta"]["id"]
    body = {"n": 1, "id": id_}
    assert got == {"type": "broadcast", "event": "e", "payload": body, "meta": {"id": id_}}


async def test_what_is_rolled_back_is_never_sent(open_rooms: Stream) -> None:
    async with open_rooms.client() as client:
        await enter(client, private=True)
        open_rooms.execute(
            f"begin; {send(1)} savepoint s; {send(2)} rollback to s; {send(3)} commit;"
            f"begin; {send(4)} rollback; {send(5)}"
        )
        got = [(await message(client))["payload"] for _ in range(3)]
    assert got == [1, 3, 5]


async def test_a_message_is_private_unless_it_says_that_it_is_not(open_rooms: Stream) -> None:
    async with open_rooms.client() as private, open_rooms.client() as public:
        await enter(private, private=True)
        await enter(public)
        for privacy in ("", ", null", ", true"):
            open_rooms.execute(f"select realtime.send('1', 'e', 'room'{privacy})")
        open_rooms.execute(send(2, private=False))
        assert [await heard(private) for _ in range(3)] == [1, 1, 1]
        assert await heard(public) == 2


async def test_bytes_are_sent_as_bytes(open_rooms: Stream) -> None:
    async with (
        open_rooms.client(version="2.0.0") as client,
        open_rooms.client() as first,
    ):
        await enter(client, private=True)
        await enter(first, private=True)
        open_rooms.execute("select realtime.send_binary('\\x00ff10', 'e', 'room');" + send(2))
        async with asyncio.timeout(DEADLINE_S):
            data = await client.socket.recv()
        assert isinstance(data, bytes)
        topic, event, meta, payload, is_binary = read_broadcast(data)
        assert (topic, event, payload, is_binary) == (TOPIC, "e", b"\x00\xff\x10", True)
        assert list(meta) == ["id"]
        assert await heard(first) == 2  # bytes are not for version 1


async def test_a_trigger_broadcasts_changes(open_rooms: Stream) -> None:
    open_rooms.execute("""
        drop table if exists todos;
        create table todos (id int primary key, title text);
        create or replace function tell() returns trigger language plpgsql security definer as $$
        begin
          perform realtime.broadcast_changes(
            'room', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
          return null;
        end $$;
        create trigger tell after insert or update or delete on todos
          for each row execute function tell();
    """)
    async with open_rooms.client() as client:
        await enter(client, private=True)
        open_rooms.execute(
            "insert into todos values (1, 'a'); update todos set title = 'b'; delete from todos"
        )
        got = [await message(client) for _ in range(3)]
    assert [m["event"] for m in got] == ["INSERT", "UPDATE", "DELETE"]
    update = got[1]["payload"]
    assert update == {
        "id": got[1]["meta"]["id"],
        "schema": "public",
        "table": "todos",
        "operation": "UPDATE",
        "record": {"id": 1, "title": "b"},
        "old_record": {"id": 1, "title": "a"},
    }
    assert (got[0]["payload"]["old_record"], got[2]["payload"]["record"]) == (None, None)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("select realtime.send(null, 'e', 'room')", NullValueNotAllowed),
        ("select realtime.send('{}', null, 'room')", NullValueNotAllowed),
        ("select realtime.send('{}', 'e', '')", NullValueNotAllowed),
        (
            "select realtime.send(to_jsonb(repeat('x', 3000000)), 'e', 'room')",
            ProgramLimitExceeded,
        ),
        ("select realtime.send_binary('', repeat('e', 256), 'room')", ProgramLimitExceeded),
        ("select realtime.send_binary('', 'e', repeat('r', 250))", ProgramLimitExceeded),
        (
            "select realtime.broadcast_changes('t', 'e', 'TRUNCATE', 't', 's', null, null)",
            RaiseException,
        ),
        ("set role authenticated; select realtime.send('{}', 'e', 'room')", InsufficientPrivilege),
        ("set role anon; select butterbase.emit_broadcast('')", InsufficientPrivilege),
        ("set role service_role; select butterbase.emit_broadcast('')", InsufficientPrivilege),
        ("set role authenticated; delete from realtime.messages", InsufficientPrivilege),
        ("set role anon; update realtime.messages set event = ''", InsufficientPrivilege),
        ("set role anon; select * from realtime.messages_default", InsufficientPrivilege),
    ],
)
async def test_what_cannot_be_sent_fails_loudly(
    open_rooms: Stream, statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        open_rooms.execute(statement)


async def test_who_sends_is_judged_by_policies_and_by_the_topic(open_rooms: Stream) -> None:
    open_rooms.execute(
        "create policy w on realtime.messages for insert to authenticated"
        " with check (realtime.topic() = 'mine' and topic = 'mine')"
    )
    try:
        open_rooms.execute(f"set role authenticated; {send({}, topic='mine')}")
        with pytest.raises(InsufficientPrivilege):
            open_rooms.execute(f"set role authenticated; {send({})}")
        with psycopg.connect(open_rooms.installation.owner_dsn) as conn:
            conn.execute("select set_config('realtime.topic', 'before', true)")
            conn.execute(send({}).encode())
            assert conn.execute("select realtime.topic()").fetchone() == ("before",)
    finally:
        open_rooms.execute("drop policy w on realtime.messages")


ROWS = """
    ('room', 'presence', '1', 'e', true), ('room', 'broadcast', '1', 'e', null),
    ('room', 'broadcast', null, 'e', true), ('room', 'broadcast', '1', null, true),
    ('room', 'broadcast', '2', 'e', true)
"""


async def test_rows_that_are_no_messages_are_not_sent(
    open_rooms: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_rooms.client() as private, open_rooms.client() as public:
        await enter(private, private=True)
        await enter(public)
        open_rooms.execute(
            "insert into realtime.messages"  # noqa: S608  constants
            f" (topic, extension, payload, event, private) values {ROWS}"
        )
        assert await heard(private) == 2
        open_rooms.execute(send(3, private=False))
        assert await heard(public) == 3
    told = [r.message for r in caplog.records if "realtime.messages is not sent" in r.message]
    assert len(told) == 3


async def test_a_large_commit_is_sent_in_order_and_others_are_served_meanwhile(
    open_rooms: Stream,
) -> None:
    async with open_rooms.client() as client, open_rooms.client() as other:
        await enter(client, private=True)
        open_rooms.execute(
            "select realtime.send(to_jsonb(n), 'e', 'room') from generate_series(1, 5000) n;"
        )
        got = [(await message(client))["payload"] for _ in range(2500)]
        await other.send("phoenix", "heartbeat", {}, "1")
        assert (await other.receive())["event"] == "phx_reply"
        got += [(await message(client))["payload"] for _ in range(2500)]
    assert got == list(range(1, 5001))


# Replay


async def replayed(client: Phoenix, since: Any = 0, **more: Any) -> dict[str, Any]:
    config = {"private": True, "broadcast": {"replay": {"since": since, **more}}}
    await client.send(TOPIC, "phx_join", {"config": config})
    return dict((await client.receive())["payload"])


async def test_kept_messages_are_replayed_in_their_order(open_rooms: Stream) -> None:
    # Those of one transaction have one time.
    open_rooms.execute(
        "select realtime.send(to_jsonb(n), 'e', 'room') from generate_series(1, 10) n;"
    )
    open_rooms.execute(send(11) + send("public", private=False) + send("other", topic="other"))
    async with open_rooms.client() as client:
        assert (await replayed(client))["status"] == "ok"
        got = [await message(client) for _ in range(11)]
        open_rooms.execute(send(12))
        last = await message(client)
    assert [m["payload"] for m in got] == list(range(1, 12))
    assert all(m["meta"]["replayed"] for m in got)
    assert last["payload"] == 12
    assert "replayed" not in last["meta"]


SECOND_38_MS = int(datetime(2020, 1, 1, 0, 0, 38, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"since": 0}, list(range(16, 41))),
        ({"since": 0, "limit": 2}, [39, 40]),
        ({"since": 0, "limit": 1000}, list(range(16, 41))),
        ({"since": SECOND_38_MS}, [38, 39, 40]),
        ({"since": SECOND_38_MS + 1}, [39, 40]),
    ],
)
async def test_a_replay_has_a_beginning_and_an_end(
    open_rooms: Stream, limits: dict[str, int], expected: list[int]
) -> None:
    open_rooms.execute(
        "insert into realtime.messages (topic, extension, payload, event, private, inserted_at)"
        " select 'room', 'broadcast', to_jsonb(n), 'e', true,"
        " timestamp '2020-01-01' + n * interval '1 second' from generate_series(1, 40) n"
    )
    async with open_rooms.client() as client:
        assert (await replayed(client, **limits))["status"] == "ok"
        assert [(await message(client))["payload"] for _ in expected] == expected
        open_rooms.execute(send("end"))
        assert (await message(client))["payload"] == "end"


async def test_what_a_policy_hides_of_single_messages_is_not_replayed(open_rooms: Stream) -> None:
    open_rooms.execute(
        send({"n": 1}, "shown")
        + send({"n": 2}, "hidden")
        + "drop policy r on realtime.messages; create policy r on realtime.messages for select"
        " using (event is distinct from 'hidden')"
    )
    async with open_rooms.client() as client:
        await replayed(client)
        assert (await message(client))["event"] == "shown"
        open_rooms.execute(send({}, "end"))
        assert (await message(client))["event"] == "end"


async def test_bytes_are_replayed_to_those_who_can_read_them(open_rooms: Stream) -> None:
    open_rooms.execute("select realtime.send_binary('\\xff', 'e', 'room');" + send(1))
    async with open_rooms.client(version="2.0.0") as client, open_rooms.client() as first:
        await replayed(client)
        assert [await heard(client), await heard(client)] == [b"\xff", 1]
        await replayed(first)
        assert await heard(first) == 1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"broadcast": {"replay": {"since": 0}}}, "Replay is not allowed for public channels"),
        (PRIVATE | {"broadcast": {"replay": {"since": "x"}}}, "Replay params are not valid"),
    ],
)
async def test_a_replay_that_cannot_be_is_refused(
    stream: Stream, config: dict[str, Any], reason: str
) -> None:
    async with stream.client() as client:
        await client.send(TOPIC, "phx_join", {"config": config})
        reply = (await client.receive())["payload"]
    assert reply["response"]["reason"] == f"UnableToReplayMessages: {reason}"


async def test_between_replay_and_log_nothing_is_lost_or_sent_twice(open_rooms: Stream) -> None:
    """Messages are committed all the time while clients join with a replay."""
    count, is_done = 150, asyncio.Event()

    async def write() -> None:
        dsn = open_rooms.installation.owner_dsn
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            for n in range(count):
                await conn.execute(send({"n": n}).encode())
        is_done.set()

    async def read() -> list[int]:
        async with open_rooms.client() as client:
            assert (await replayed(client))["status"] == "ok"
            numbers: list[int] = []
            while not numbers or numbers[-1] < count - 1:
                numbers.append((await message(client))["payload"]["n"])
            return numbers

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read())]
        group.create_task(write())
        while not is_done.is_set():
            readers.append(group.create_task(read()))
            await asyncio.wait([readers[-1]], timeout=0.01)
    for reader in readers:
        numbers = reader.result()
        assert numbers == list(range(numbers[0], count))
    assert len(readers) > 2


# What the log tells again


async def test_what_was_committed_before_the_start_is_not_sent_again(
    installation: Installation,
) -> None:
    installation.as_owner(EVERYBODY)
    async with streaming(installation) as stream:
        stream.execute(send(1))
    installation.as_owner(send(2))
    async with streaming(installation) as stream, stream.client() as client:
        await enter(client, private=True)
        stream.execute(send(3))
        assert await heard(client) == 3


# What the api emits


def emit(content: bytes) -> str:
    return f"select butterbase.emit_broadcast('\\x{content.hex()}');"


async def test_what_the_api_emits_reaches_the_rooms(open_rooms: Stream) -> None:
    messages = [
        EmittedMessage("room", True, "secret", False, b"1"),
        EmittedMessage("room", False, "open", False, b"2"),
        EmittedMessage("room", False, "bytes", True, b"\x00"),
        EmittedMessage("room", False, "open", False, b"3"),
    ]
    dsn = open_rooms.installation.main.dsn
    async with open_rooms.client() as private, open_rooms.client() as public:
        await enter(private, private=True)
        await enter(public)
        with psycopg.connect(dsn, autocommit=True) as conn:
            # What cannot be read costs nobody anything.
            for content in (
                b"",
                b"\xc1",
                encode_emitted([EmittedMessage("room", False, "e", False, b"{")]),
            ):
                conn.execute(emit(content).encode())
            conn.execute(emit(encode_emitted(messages)).encode())
        got = await message(private)
        assert got == {"type": "broadcast", "event": "secret", "payload": 1}
        assert [await heard(public), await heard(public)] == [2, 3]
