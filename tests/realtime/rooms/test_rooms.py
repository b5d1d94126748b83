"""Broadcasts and presences between real sockets."""

import json
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from butterbase.realtime.settings import RealtimeSettings
from tests.installation import Installation
from tests.realtime.channels import TOPIC, entered, heard, push, received, send
from tests.realtime.streaming import Stream, eventually, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

ECHO: dict[str, Any] = {"broadcast": {"ack": "true", "self": True}}
PRESENT: dict[str, Any] = {"presence": {"enabled": True}}


async def test_json_reaches_all_others_in_the_form_of_their_version(stream: Stream) -> None:
    async with entered(stream, "1.0.0", "2.0.0", "1.0.0", "2.0.0") as clients:
        await send(clients[0], {"n": 1})
        assert [await heard(c) for c in clients[1:]] == [{"n": 1}] * 3
        await clients[1].socket.send(push(payload=b'{"n":2}'))
        assert [await heard(c) for c in (clients[0], *clients[2:])] == [{"n": 2}] * 3


async def test_bytes_reach_those_who_can_read_them(stream: Stream) -> None:
    async with entered(stream, "2.0.0", "2.0.0", "1.0.0") as (sender, other, first):
        await sender.socket.send(push(payload=b"\x00\xff", encoding=0))
        assert await heard(other) == b"\x00\xff"
        await sender.socket.send(push(payload=b"3"))
        assert (await heard(first), await heard(other)) == (3, 3)


async def test_a_sender_is_answered_and_hears_itself_where_it_asks_for_that(stream: Stream) -> None:
    async with entered(stream, "2.0.0", **ECHO) as (client,):
        await client.socket.send(push(payload=b"[1]", ref="42"))
        assert await heard(client) == [1]
        reply = await client.receive()
        assert (reply["event"], reply["ref"]) == ("phx_reply", "42")
        assert reply["payload"] == {"status": "ok", "response": {}}


async def test_a_message_in_fragments_is_one(stream: Stream) -> None:
    async with entered(stream, "2.0.0", "2.0.0") as (sender, other):
        data = push(payload=b'{"a":1}')
        await sender.socket.send([data[:3], data[3:20], data[20:]])
        assert await heard(other) == {"a": 1}


MALFORMED = [b"", b"\x03", b"\x03" + b"\xff" * 20, push(kind=9), push(payload=b"{")]


async def test_what_is_malformed_is_dropped_and_the_socket_kept(stream: Stream) -> None:
    async with entered(stream, "2.0.0", **ECHO) as (client,):
        for data in MALFORMED:
            await client.socket.send(data)
        await client.socket.send('[null,"1","realtime:room","broadcast",7]')
        await send(client, "fine")
        assert await heard(client) == "fine"


async def test_a_message_that_is_too_long_ends_the_socket_in_fragments_too(stream: Stream) -> None:
    async with entered(stream, "2.0.0") as (client,):
        with suppress(ConnectionClosed):  # it may be closed before all is sent
            await client.socket.send([b"x" * 1_000_000] * 6)
        await client.socket.wait_closed()
        assert client.socket.close_code == 1009


async def test_a_payload_that_is_too_large_is_told_to_who_asks(app: Installation) -> None:
    settings = RealtimeSettings(payload_bytes_max=100)
    async with streaming(app, settings=settings) as stream:
        async with entered(stream, "2.0.0", **ECHO) as (client,):
            await client.socket.send(push(payload=b'"' + b"x" * 99 + b'"'))
            reply = (await client.receive())["payload"]
        assert reply == {"status": "error", "response": "payload_size_exceeded"}


async def test_rooms_of_other_topics_and_left_ones_hear_nothing(stream: Stream) -> None:
    async with (
        entered(stream, "1.0.0", "1.0.0") as (sender, leaver),
        entered(stream, "1.0.0", topic="realtime:other") as (other,),
    ):
        await leaver.send(TOPIC, "phx_leave", {}, "2")
        assert [(await leaver.receive())["event"] for _ in range(2)] == ["phx_reply", "phx_close"]
        await send(sender, 1)
        for client in (leaver, other):
            await client.send("phoenix", "heartbeat", {}, "8")
            assert (await client.receive())["ref"] == "8"
    await eventually(lambda: len(stream.rooms) == 0)


# Presence


async def test_presences_come_and_change_and_go(stream: Stream) -> None:
    async with entered(stream, "1.0.0", **PRESENT) as (watcher,):
        assert (await watcher.receive())["event"] == "presence_state"
        async with entered(stream, "2.0.0", presence={"key": "ada", "enabled": True}) as (ada,):
            assert (await ada.receive())["payload"] == {}
            await ada.send(TOPIC, "presence", {"event": "track", "payload": {"at": "home"}}, "5")
            assert (await ada.receive())["payload"] == {"status": "ok", "response": {}}
            diff = (await ada.receive())["payload"]
            (meta,) = diff["joins"]["ada"]["metas"]
            assert meta == {"phx_ref": meta["phx_ref"], "at": "home"}
            assert (await watcher.receive())["payload"] == diff
            await ada.send(TOPIC, "presence", {"event": "track", "payload": {"at": "work"}}, "6")
            update = (await watcher.receive())["payload"]
            assert update["leaves"] == diff["joins"]
            (changed,) = update["joins"]["ada"]["metas"]
            assert (changed["phx_ref_prev"], changed["at"]) == (meta["phx_ref"], "work")
            async with entered(stream, "1.0.0", **PRESENT) as (late,):
                state = (await late.receive())["payload"]
                assert state["ada"]["metas"][0]["phx_ref"] == changed["phx_ref"]
        gone = (await watcher.receive())["payload"]  # its socket was closed
        assert (list(gone["leaves"]), gone["joins"]) == (["ada"], {})


async def test_who_tracks_sees_others_and_who_does_not_ask_sees_nothing(stream: Stream) -> None:
    async with entered(stream, "1.0.0", "1.0.0", "1.0.0") as (first, second, silent):
        await first.send(TOPIC, "presence", {"event": "track", "payload": {"n": 1}})
        events = [(await first.receive())["event"] for _ in range(3)]
        assert events == ["presence_state", "phx_reply", "presence_diff"]
        await second.send(TOPIC, "presence", {"event": "track", "payload": {"n": 2}})
        state = await second.receive()
        assert [m["n"] for v in state["payload"].values() for m in v["metas"]] == [1]
        await send(first, "last")
        assert await heard(silent) == "last"


async def test_a_storm_of_joins_is_told_in_few_messages(stream: Stream) -> None:
    count = 50
    async with entered(stream, "1.0.0", **PRESENT) as (watcher,):
        await watcher.receive()
        async with entered(stream, *["2.0.0"] * count) as clients:
            for number, client in enumerate(clients):
                await client.send(TOPIC, "presence", {"event": "track", "payload": {"n": number}})
            seen: set[int] = set()
            message_count = 0
            while len(seen) < count:
                diff = (await watcher.receive())["payload"]
                seen |= {m["n"] for entry in diff["joins"].values() for m in entry["metas"]}
                message_count += 1
        left = 0
        while left < count:
            left += len((await watcher.receive())["payload"]["leaves"])
    assert seen == set(range(count))
    assert message_count < count


async def test_a_room_that_is_full_refuses_presences_and_keeps_the_channel(
    app: Installation,
) -> None:
    settings = RealtimeSettings(room_presence_bytes_max=200)
    async with (
        streaming(app, settings=settings) as stream,
        entered(stream, "1.0.0", **ECHO) as (client,),
    ):
        await client.send(TOPIC, "presence", {"event": "track", "payload": {"x": "x" * 300}})
        assert (await client.receive())["payload"]["status"] == "error"
        await send(client, "still here")
        assert await heard(client) == "still here"


# Limits


async def test_a_flood_closes_its_channel_with_the_reason(app: Installation) -> None:
    settings = RealtimeSettings(message_rate_max=20)
    async with (
        streaming(app, settings=settings) as stream,
        entered(stream, "1.0.0") as (client,),
    ):
        for number in range(100):
            await send(client, number)
        system, closed = await client.receive(), await client.receive()
    assert system["payload"] == {
        "extension": "system",
        "status": "error",
        "message": "Too many messages per second",
        "channel": "room",
    }
    assert closed["event"] == "phx_close"


async def test_a_flood_of_joins_ends_the_socket(app: Installation) -> None:
    settings = RealtimeSettings(join_rate_max=10)
    async with streaming(app, settings=settings) as stream, stream.client() as client:
        for number in range(30):
            await client.send(f"realtime:{number}", "phx_join", {}, str(number), str(number))
        replies = [json.loads(text) async for text in received(client)]
        await eventually(lambda: len(stream.rooms) == 0)
        assert client.socket.close_code == 4429
    reason = replies[-1]["payload"]["response"]["reason"]
    assert reason == "ClientJoinRateLimitReached: Too many joins per second"


async def test_a_member_that_does_not_read_is_closed_and_the_others_go_on(
    app: Installation,
) -> None:
    settings = RealtimeSettings(write_buffer_bytes_max=64 * 1024, close_timeout_s=0.2)
    async with (
        streaming(app, settings=settings) as stream,
        entered(stream, "2.0.0", "2.0.0", "2.0.0") as (sender, slow, reader),
    ):
        slow.socket.transport.pause_reading()
        for number in range(60):
            await sender.socket.send(push(payload=b'"' + b"x" * 200_000 + b'"'))
            assert await heard(reader), number
        await eventually(lambda: stream.server.connection_count == 2)
        # It would wait ten seconds for the end of what it does not read.
        slow.socket.transport.abort()


@pytest.mark.parametrize("name", ['"], "x": ["', "röom/🎉", "a:b:c", "%2F", "x" * 300, "\u2028"])
async def test_topics_of_any_kind_work(stream: Stream, name: str) -> None:
    topic = f"realtime:{name}"
    async with entered(stream, "1.0.0", "2.0.0", topic=topic) as (first, second):
        await send(first, name, topic=topic)
        assert await heard(second) == name
        await send(second, name, topic=topic)
        assert await heard(first) == name
