"""Sockets live no longer than the sessions of their tokens, which the tokens themselves may."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from butterbase.realtime.session.protocol import Closing
from butterbase.sql.claims import Claims
from tests.realtime.streaming import (
    ALICE,
    BOB,
    DEADLINE_S,
    Phoenix,
    Stream,
    eventually,
    user_claims,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = """
    drop table if exists notes;
    create table notes (id bigint generated always as identity primary key, body text);
    create policy all_of_it on notes using (true);
"""
ANY_NOTE = {"event": "*", "schema": "public", "table": "notes"}


@dataclass
class Session:
    """A user's, in the database, and a token of it."""

    dsn: str
    id: str
    token: str

    def end(self) -> None:
        with psycopg.connect(self.dsn) as conn:
            conn.execute("delete from auth.sessions where id = %s", [self.id])


@pytest.fixture
def start(stream: Stream) -> Callable[[], Session]:
    dsn = stream.installation.main.dsn

    def start() -> Session:
        id_ = str(uuid.uuid4())
        with psycopg.connect(dsn) as conn:
            conn.execute("insert into auth.users (id) values (%s) on conflict do nothing", [ALICE])
            conn.execute(
                "insert into auth.sessions (id, user_id, refresh_nonce) values (%s, %s, '')",
                [id_, ALICE],
            )
        claims = msgspec.structs.replace(user_claims(ALICE), session_id=id_)
        return Session(dsn, id_, stream.keys.issue(claims))

    return start


async def closing_of(client: Phoenix) -> int:
    try:
        while True:
            await client.receive()
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else closed.rcvd.code


def sessions_of(stream: Stream) -> set[str | None]:
    """Those by which somebody listens."""
    return {subscriber.claims.session_id for subscriber in stream.hub._joined}


async def test_the_end_of_a_session_closes_its_sockets_and_no_others(
    stream: Stream, start: Callable[[], Session]
) -> None:
    stream.execute(NOTES)
    one, other = start(), start()
    async with stream.client(one.token) as ended, stream.client(other.token) as left:
        await ended.join("realtime:quiet")
        await left.subscribe("realtime:room", ANY_NOTE)
        one.end()
        assert await closing_of(ended) == Closing.SESSION_ENDED
        stream.execute("insert into notes (body) values ('still there')")
        assert (await left.change())["record"]["body"] == "still there"


@pytest.mark.parametrize("changes", [[], [ANY_NOTE]])
async def test_the_token_of_an_ended_session_joins_nothing(
    stream: Stream, start: Callable[[], Session], changes: list[dict[str, str]]
) -> None:
    stream.execute(NOTES)
    session = start()
    session.end()
    async with stream.client() as client:
        reply = await client.join("realtime:room", *changes, token=session.token)
    assert reply == {
        "status": "error",
        "response": {"reason": "InvalidJWTToken: The session has ended."},
    }


async def test_a_session_that_never_was_joins_nothing(stream: Stream) -> None:
    for id_ in ("no uuid", str(uuid.uuid4())):
        claims = msgspec.structs.replace(user_claims(ALICE), session_id=id_)
        async with stream.client(stream.keys.issue(claims)) as client:
            assert (await client.join("realtime:room"))["status"] == "error"


async def test_a_channel_is_not_carried_on_by_the_token_of_an_ended_session(
    stream: Stream, start: Callable[[], Session]
) -> None:
    stream.execute(NOTES)
    good, ended = start(), start()
    ended.end()
    async with stream.client(good.token) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        await client.send("realtime:room", "access_token", {"access_token": ended.token}, "2", "1")
        assert await closing_of(client) == Closing.SESSION_ENDED


async def test_the_token_of_an_ended_session_is_not_let_in_behind_a_join(
    stream: Stream, start: Callable[[], Session]
) -> None:
    stream.execute(NOTES)
    ended = start()
    ended.end()
    stream.hub._sessions._ended.clear()  # it ended long ago
    async with stream.client() as client:
        payload = {"config": {"postgres_changes": [ANY_NOTE]}}
        await client.send("realtime:room", "phx_join", payload)
        await client.send("realtime:room", "access_token", {"access_token": ended.token}, "2")
        reply = (await client.receive())["payload"]
    assert reply["response"]["reason"] == "InvalidJWTToken: The session has ended."


async def test_nothing_is_sent_by_a_token_before_its_session_is_known_to_last(
    stream: Stream, start: Callable[[], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.execute(NOTES + "alter policy all_of_it on notes using (auth.uid() is not null)")
    session = start()
    asked, answered = asyncio.Event(), asyncio.Event()
    check = stream.hub.check

    async def slow_check(claims: Claims) -> None:
        asked.set()
        await answered.wait()
        await check(claims)

    monkeypatch.setattr(stream.hub, "check", slow_check)
    async with stream.client() as client, stream.client(stream.keys.user(BOB)) as witness:
        for each in (client, witness):
            await each.subscribe("realtime:room", ANY_NOTE)
        token = {"access_token": session.token}
        await client.send("realtime:room", "access_token", token, "2", "1")
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        stream.execute("insert into notes (body) values ('early')")
        assert (await witness.change())["record"]["body"] == "early"
        answered.set()
        await eventually(lambda: session.id in sessions_of(stream))
        stream.execute("insert into notes (body) values ('late')")
        assert (await client.change())["record"]["body"] == "late"


async def test_a_channel_is_carried_on_by_the_token_of_another_session(
    stream: Stream, start: Callable[[], Session]
) -> None:
    stream.execute(NOTES)
    first, second = start(), start()
    async with stream.client(first.token) as client:
        await client.subscribe("realtime:room", ANY_NOTE)
        await client.send("realtime:room", "access_token", {"access_token": second.token}, "2", "1")
        await eventually(lambda: second.id in sessions_of(stream))
        first.end()
        stream.execute("insert into notes (body) values ('carried on')")
        assert (await client.change())["record"]["body"] == "carried on"
