"""The server on real sockets, over a real log."""

import asyncio
import json
import re
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from butterbase.realtime.settings import RealtimeSettings
from tests.installation import Installation
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, Stream, eventually, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = """
    drop table if exists notes;
    create table notes (id bigint generated always as identity primary key, owner uuid, body text);
    create policy own on notes using (owner = auth.uid());
"""
ANY_NOTE = {"event": "*", "schema": "public", "table": "notes"}


GIVE_TO_BOB = f"update notes set owner = '{BOB}';"  # noqa: S608  constants


def insert(owner: str, body: str) -> str:
    return f"insert into notes (owner, body) values ('{owner}', '{body}');"  # noqa: S608  constants


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_a_subscriber_gets_the_rows_it_may_see(stream: Stream, version: str) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(ALICE), version=version) as client:
        (id_,) = await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute(insert(BOB, "not hers") + insert(ALICE, "hers"))
        message = await client.receive()
    assert (message["topic"], message["ref"]) == ("realtime:room", None)
    assert message["payload"]["ids"] == [id_]
    data = message["payload"]["data"]
    assert data.pop("commit_timestamp").endswith("Z")
    assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+/2", data.pop("position"))
    assert data == {
        "schema": "public",
        "table": "notes",
        "type": "INSERT",
        "columns": [
            {"name": "id", "type": "int8"},
            {"name": "owner", "type": "uuid"},
            {"name": "body", "type": "text"},
        ],
        "record": {"id": 2, "owner": ALICE, "body": "hers"},
        "errors": None,
    }


async def test_an_update_tells_the_old_key_and_a_delete_nothing_else(stream: Stream) -> None:
    stream.execute(NOTES + insert(ALICE, "draft"))
    async with stream.client(stream.keys.role("service_role")) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute("update notes set body = 'final'; delete from notes")
        update, delete = await client.change(), await client.change()
    assert update["record"]["body"] == "final"
    assert update["old_record"] == {"id": 1}
    assert "record" not in delete
    assert delete["old_record"] == {"id": 1}


async def test_a_delete_is_hidden_where_the_policy_needs_what_the_log_lacks(
    stream: Stream,
) -> None:
    stream.execute(NOTES + insert(ALICE, "draft"))
    async with stream.client(stream.keys.user(ALICE)) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute("delete from notes")
        stream.execute(insert(ALICE, "next"))
        assert (await client.change())["type"] == "INSERT"


async def test_an_unchanged_large_value_is_left_out_and_hides_the_row_from_a_policy_on_it(
    stream: Stream,
) -> None:
    stream.execute(
        "drop table if exists pages; create table pages (id int primary key, body text, n int);"
        "alter table pages alter body set storage external;"
        "create policy by_body on pages using (body like 'x%');"
        "insert into pages values (1, repeat('x', 10000), 1)"
    )
    wanted = {"event": "*", "schema": "public", "table": "pages"}
    async with (
        stream.client(stream.keys.role("service_role")) as service,
        stream.client(stream.keys.user(ALICE)) as alice,
    ):
        await service.subscribe("realtime:room", wanted)
        await alice.subscribe("realtime:room", wanted)
        stream.execute("update pages set n = 2; update pages set body = 'x', n = 3")
        assert (await service.change())["record"] == {"id": 1, "n": 2}
        assert (await alice.change())["record"] == {"id": 1, "body": "x", "n": 3}
        stream.execute("alter table pages replica identity full")
        stream.execute("update pages set body = repeat('x', 10000)")
        stream.execute("update pages set n = 5")
        assert (await alice.change())["record"]["n"] == 3
        data = await alice.change()
    assert (len(data["record"]["body"]), data["old_record"]) == (10_000, {"id": 1})


async def test_each_change_of_a_transaction_is_judged_on_its_own_row(stream: Stream) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(ALICE)) as alice, stream.client() as socket:
        await alice.subscribe("realtime:room", ANY_NOTE)
        await socket.subscribe("realtime:room", ANY_NOTE, token=stream.keys.user(BOB))
        stream.execute("begin;" + insert(ALICE, "gift") + GIVE_TO_BOB + "commit")
        stream.execute(insert(ALICE, "end") + insert(BOB, "end"))
        to_alice = [await alice.change() for _ in range(2)]
        to_bob = [await socket.change() for _ in range(2)]
    assert [(c["type"], c["record"]["body"]) for c in to_alice] == [
        ("INSERT", "gift"),
        ("INSERT", "end"),
    ]
    assert [(c["type"], c["record"]["owner"]) for c in to_bob] == [("UPDATE", BOB), ("INSERT", BOB)]


async def test_ddl_takes_effect_in_the_order_of_the_log(stream: Stream) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(ALICE)) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute(insert(ALICE, "before"))
        assert (await client.change())["record"]["body"] == "before"
        stream.execute("begin; drop policy own on notes;" + insert(ALICE, "hidden") + "commit")
        stream.execute("create policy all_of_them on notes using (true)")
        stream.execute(insert(BOB, "after"))
        seen = await client.change()
    # What was written without a policy may meanwhile be judged by the newer one, never by the old.
    assert seen["record"]["body"] in ("hidden", "after")


async def test_only_changes_that_pass_the_filter_arrive(stream: Stream) -> None:
    stream.execute("create table prices (id int primary key, amount numeric, is_new boolean)")
    async with stream.client(stream.keys.role("service_role")) as client:
        amount, flag = await client.subscribe(
            "realtime:room",
            {"event": "INSERT", "schema": "public", "table": "prices", "filter": "amount=eq.1.50"},
            {"event": "INSERT", "schema": "public", "table": "prices", "filter": "is_new=eq.true"},
        )
        stream.execute(
            "insert into prices values (1, 1.5, false), (2, 1.51, false), (3, null, true),"
            " (4, 1.500, true)"
        )
        messages = [await client.receive() for _ in range(3)]
    got = [(m["payload"]["data"]["record"]["id"], m["payload"]["ids"]) for m in messages]
    assert got == [(1, [amount]), (3, [flag]), (4, [amount, flag])]


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"table": "notes", "filter": "id=cs.1"}, 'Error parsing `filter` params: ["cs", "1"]'),
    ({"table": "notes", "filter": "nothing=eq.1"}, "invalid column for filter nothing"),
    ({"table": "notes", "filter": "id=eq.one"}, "invalid input syntax for type bigint"),
    ({"table": "notes", "filter": "extra=eq.{}"}, "operator does not exist: json = json"),
    ({"table": "nothing"}, "Please check Realtime is enabled for the given connect parameters"),
    ({"schema": "auth", "table": "users"}, "Schema auth is not exposed"),
    ({"table": "notes", "event": "TRUNCATE"}, "Unknown event TRUNCATE"),
    ({"table": "notes", "select": ["nothing"]}, "invalid column for select nothing"),
]


async def test_what_cannot_be_subscribed_is_told_and_the_channel_stays(stream: Stream) -> None:
    stream.execute(NOTES + "alter table notes add extra json")
    async with stream.client(stream.keys.user(ALICE)) as client:
        for change, problem in PROBLEMS:
            wanted = {"event": "*", "schema": "public", **change}
            reply = await client.join("realtime:room", wanted)
            assert reply["status"] == "ok"
            (entry,) = reply["response"]["postgres_changes"]
            assert entry == {**wanted, "id": entry["id"]}
            system = (await client.receive())["payload"]
            assert (system["extension"], system["status"]) == ("postgres_changes", "error")
            assert problem in system["message"]
            await client.send("realtime:room", "phx_leave", {}, "2")
            assert (await client.receive())["payload"] == {"status": "ok", "response": {}}
            assert (await client.receive())["event"] == "phx_close"


async def test_columns_without_privilege_are_left_out(stream: Stream) -> None:
    stream.execute(
        "create table people (id int primary key, name text, salary int);"
        "create policy everybody on people using (true);"
        "revoke all on people from authenticated;"
        "grant select (id, name) on people to authenticated"
    )
    async with stream.client(stream.keys.user(ALICE)) as client:
        await client.subscribe(
            "realtime:room", {"event": "*", "schema": "public", "table": "people"}
        )
        stream.execute("insert into people values (1, 'Ada', 100)")
        data = await client.change()
    assert data["record"] == {"id": 1, "name": "Ada"}
    assert [column["name"] for column in data["columns"]] == ["id", "name"]


async def test_a_new_token_changes_what_is_seen(stream: Stream) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(ALICE)) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        token = stream.keys.user(BOB)
        await client.send("realtime:room", "access_token", {"access_token": token}, None)
        await client.send("phoenix", "heartbeat", {}, "9")
        assert (await client.receive())["ref"] == "9"
        stream.execute(insert(ALICE, "hers") + insert(BOB, "his"))
        assert (await client.change())["record"]["owner"] == BOB


async def test_a_channel_ends_with_its_token(stream: Stream) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(BOB)) as client:
        await client.subscribe("realtime:room", ANY_NOTE, token=stream.keys.user(ALICE, life_s=4))
        system, close = await client.receive(), await client.receive()
    assert system["payload"]["status"] == "error"
    assert "Token has expired" in system["payload"]["message"]
    assert (close["event"], close["ref"]) == ("phx_close", "1")


REFUSALS = [
    ("/realtime/v1/websocket", 401, "API key is missing"),
    ("/realtime/v1/websocket?apikey=forged", 401, "The token provided is not a valid JWT"),
    ("/v1/other/realtime/v1/websocket?apikey=x", 404, "Tenant not found"),
    ("/elsewhere?apikey=x", 404, "there is no websocket at /elsewhere"),
    ("/realtime/v1/websocket?apikey=x&vsn=9", 400, "vsn 9 is not supported"),
]


async def test_a_refused_handshake_says_why_in_json(stream: Stream) -> None:
    for target, status, error in REFUSALS:
        with pytest.raises(InvalidStatus) as raised:
            async with connect(f"ws://127.0.0.1:{stream.port}{target}"):
                pass
        response = raised.value.response
        assert response.status_code == status
        assert json.loads(response.body or b"") == {"error": error}


async def test_an_app_has_its_own_path_and_the_key_may_be_a_header(stream: Stream) -> None:
    url = f"ws://127.0.0.1:{stream.port}/v1/main/realtime/v1/websocket?apikey=forged"
    headers = {"x-api-key": stream.keys.role("anon")}
    async with connect(url, additional_headers=headers) as socket:
        await socket.send('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')
        async with asyncio.timeout(DEADLINE_S):
            assert json.loads(await socket.recv())["payload"]["status"] == "ok"


async def test_a_frame_that_is_no_message_is_dropped_and_the_socket_lives(stream: Stream) -> None:
    async with stream.client() as client:
        for nonsense in ("{", "[]", '{"topic":1}', b"\x03binary"):
            await client.socket.send(nonsense)
        await client.socket.send(iter(['{"topic":"phoenix","event":', '"heartbeat","payload":{}}']))
        assert (await client.receive())["payload"]["status"] == "ok"


async def test_a_silent_socket_is_closed(installation: Installation) -> None:
    settings = RealtimeSettings(idle_timeout_s=0.2)
    async with streaming(installation, settings=settings) as stream, stream.client() as client:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionClosed) as raised:
                await client.socket.recv()
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == 1001


async def test_a_stopping_server_asks_clients_to_come_back(installation: Installation) -> None:
    async with streaming(installation) as stream, stream.client() as client:
        await stream.server.close()
        with pytest.raises(ConnectionClosed) as raised:
            await client.socket.recv()
        assert stream.server.connection_count == 0
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == 1012


async def test_a_socket_that_does_not_read_is_closed(installation: Installation) -> None:
    settings = RealtimeSettings(write_buffer_bytes_max=64 * 1024, close_timeout_s=0.2)
    async with streaming(installation, settings=settings) as stream:
        stream.execute(NOTES)
        async with stream.client(stream.keys.role("service_role")) as client:
            await client.subscribe("realtime:room", ANY_NOTE)
            client.socket.transport.pause_reading()
            for _ in range(5):
                stream.execute(
                    "insert into notes (body) select repeat('x', 100000)"
                    " from generate_series(1, 100)"
                )
            await eventually(lambda: not stream.server.connection_count)
            client.socket.transport.resume_reading()


async def test_a_join_is_refused_while_nobody_reads_the_log(installation: Installation) -> None:
    settings = RealtimeSettings(log_wait_s=0.05)
    async with streaming(installation, settings=settings) as stream:
        stream.hub._wait_log = asyncio.Event().wait  # type: ignore[assignment]  # never set
        async with stream.client() as client:
            reply = await client.join("realtime:room", ANY_NOTE)
    assert reply["status"] == "error"
    assert reply["response"]["reason"].startswith("UnableToConnectToProject: ")
