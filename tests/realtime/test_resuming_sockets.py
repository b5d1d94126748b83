"""Channels that go on where they were, over real sockets."""

import pytest

from tests.realtime.streaming import ALICE, BOB, Stream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = """
    drop table if exists notes;
    create table notes (id bigint generated always as identity primary key, owner uuid, body text);
    create policy own on notes using (owner = auth.uid());
"""
ANY_NOTE = {"event": "*", "schema": "public", "table": "notes"}


def insert(owner: str, count: int = 1) -> str:
    return f"insert into notes (owner) values ('{owner}');" * count  # noqa: S608


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_what_was_missed_comes_behind_the_answer_and_before_what_happens(
    stream: Stream, version: str
) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    async with stream.client(token, version=version) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute(insert(ALICE))
        position = (await client.change())["position"]
    stream.execute(insert(ALICE) + insert(BOB) + insert(ALICE))
    async with stream.client(token, version=version) as client:
        reply = await client.join("realtime:room", {**ANY_NOTE, "from": position})
        assert (reply["status"], reply["response"]["position"]) == ("ok", position)
        assert (await client.receive())["payload"]["message"] == "Subscribed to PostgreSQL"
        stream.execute(insert(ALICE))
        changes = [await client.change() for _ in range(3)]
    assert [change["record"]["id"] for change in changes] == [2, 4, 5]


async def test_a_channel_that_has_heard_nothing_goes_on_from_its_answer(stream: Stream) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    async with stream.client(token) as client:
        reply = await client.join("realtime:room", ANY_NOTE)
    stream.execute(insert(ALICE))
    async with stream.client(token) as client:
        position = reply["response"]["position"]
        await client.subscribe("realtime:room", {**ANY_NOTE, "from": position})
        assert (await client.change())["record"]["id"] == 1


async def test_a_heartbeat_tells_how_far_a_channel_has_come(stream: Stream) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    async with stream.client(token) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        stream.execute(insert(BOB))
        told: dict[str, str] = {}

        async def is_told() -> bool:
            await client.send("phoenix", "heartbeat", {}, "9")
            response = (await client.receive())["payload"]["response"]
            told.update(response.get("positions", {}))
            return bool(told)

        await until(is_told)
        stream.execute(insert(ALICE))
    async with stream.client(token) as client:
        await client.subscribe("realtime:room", {**ANY_NOTE, "from": told["realtime:room"]})
        assert (await client.change())["record"]["id"] == 2


async def test_policies_are_those_of_now(stream: Stream) -> None:
    stream.execute(NOTES)
    token = stream.keys.user(ALICE)
    async with stream.client(token) as client:
        reply = await client.join("realtime:room", ANY_NOTE)
        await client.receive()
        stream.execute(insert(ALICE, 2))
        assert [(await client.change())["record"]["id"] for _ in range(2)] == [1, 2]
        stream.execute("drop policy own on notes; create policy one on notes using (id <> 1);")
        stream.execute(insert(BOB))
        assert (await client.change())["record"]["id"] == 3
    async with stream.client(token) as client:
        position = reply["response"]["position"]
        await client.subscribe("realtime:room", {**ANY_NOTE, "from": position})
        assert [(await client.change())["record"]["id"] for _ in range(2)] == [2, 3]


async def test_a_position_that_is_none_or_too_old_is_refused(stream: Stream) -> None:
    stream.execute(NOTES)
    async with stream.client(stream.keys.user(ALICE)) as client:
        reply = await client.join("realtime:room", {**ANY_NOTE, "from": "yesterday"})
        assert reply["response"] == {"reason": "InvalidPosition: yesterday is not a position"}
        reply = await client.join("realtime:room", {**ANY_NOTE, "from": "0/1/1"})
        response = reply["response"]
        assert response["reason"].startswith("ResyncRequired: ")
        assert response["code"] == "resync_required"
        stream.execute(insert(ALICE))
        await client.subscribe("realtime:room", {**ANY_NOTE, "from": response["position"]})
        assert (await client.change())["record"]["id"] == 1
