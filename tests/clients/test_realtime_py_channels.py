"""The unmodified Python client of Supabase, which speaks version 1: broadcasts and presences."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from realtime.types import RealtimeSubscribeStates as States

from butterbase.realtime.session.protocol import Closing
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from tests.installation import Installation, installed
from tests.postgres import Databases
from tests.realtime.streaming import (
    ALICE,
    BOB,
    DEADLINE_S,
    Stream,
    eventually,
    streaming,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICIES = f"""
    drop policy if exists alices on realtime.messages;
    create policy alices on realtime.messages to authenticated
      using (auth.uid() = '{ALICE}') with check (auth.uid() = '{ALICE}');
"""


@pytest.fixture(scope="module")
def app(postgres: Databases, installation_template: Installation) -> Iterator[Installation]:
    with installed(postgres, installation_template) as installation:
        yield installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stream(app: Installation) -> AsyncIterator[Stream]:
    async with streaming(app) as stream:
        yield stream


@asynccontextmanager
async def connected(stream: Stream, token: str | None = None) -> AsyncIterator[AsyncRealtimeClient]:
    url = f"ws://127.0.0.1:{stream.port}/realtime/v1"
    client = AsyncRealtimeClient(url, token or stream.keys.role("anon"), initial_backoff=0.05)
    await client.connect()
    try:
        yield client
    finally:
        await client.remove_all_channels()


class Listener:
    """A channel that hears everything."""

    def __init__(self, client: AsyncRealtimeClient, topic: str, **config: Any) -> None:
        defaults = {"broadcast": {"ack": False, "self": False}, "presence": None, "private": False}
        self.channel: AsyncRealtimeChannel = client.channel(topic, {"config": defaults | config})
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.states: list[tuple[States, Exception | None]] = []
        self.channel.on_broadcast("*", self.heard.put_nowait)

    async def subscribe(self) -> "Listener":
        await self.channel.subscribe(lambda state, error: self.states.append((state, error)))
        await eventually(lambda: bool(self.states))
        return self

    @property
    def is_subscribed(self) -> bool:
        return bool(self.states) and self.states[-1][0] is States.SUBSCRIBED

    async def next(self) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await self.heard.get()


async def test_broadcasts_reach_others_and_who_asks_for_its_own(stream: Stream) -> None:
    async with connected(stream) as a, connected(stream) as b:
        sender = await Listener(a, "lobby").subscribe()
        echoed = await Listener(b, "lobby", broadcast={"self": True, "ack": True}).subscribe()
        await sender.channel.send_broadcast("said", {"n": 1})
        assert (await echoed.next())["payload"] == {"n": 1}
        await echoed.channel.send_broadcast("said", {"n": 2})
        assert (await sender.next())["payload"] == {"n": 2}
        assert (await echoed.next())["event"] == "said"
        assert sender.heard.empty()


async def test_presences_are_the_same_for_all(stream: Stream) -> None:
    async with connected(stream) as a, connected(stream) as b:
        ada = Listener(a, "hall", presence={"key": "ada", "enabled": True})
        bob = Listener(b, "hall", presence={"key": "bob", "enabled": True})
        for listener in (ada, bob):
            listener.channel.on_presence_sync(lambda: None)
            await listener.subscribe()
        await ada.channel.track({"at": "home"})
        await bob.channel.track({"at": "work"})

        def places(listener: Listener) -> dict[str, list[Any]]:
            state = listener.channel.presence_state()
            return {key: [p.get("at") for p in presences] for key, presences in state.items()}

        everybody = {"ada": ["home"], "bob": ["work"]}
        await eventually(lambda: places(ada) == places(bob) == everybody)
        await ada.channel.track({"at": "sea"})
        await eventually(lambda: places(bob) == everybody | {"ada": ["sea"]})
        await ada.channel.untrack()
        await eventually(lambda: places(bob) == {"bob": ["work"]})


async def test_private_channels_and_messages_of_the_database(stream: Stream) -> None:
    stream.execute(POLICIES)
    keys = stream.keys
    async with connected(stream, keys.user(ALICE)) as a, connected(stream, keys.user(BOB)) as b:
        alice = await Listener(a, "club", private=True).subscribe()
        assert alice.is_subscribed
        bob = await Listener(b, "club", private=True).subscribe()
        state, error = bob.states[0]
        assert state is States.CHANNEL_ERROR
        assert "You do not have permissions to read from this Channel topic: club" in str(error)
        stream.execute("select realtime.send('{\"n\": 1}', 'told', 'club')")
        told = await alice.next()
        assert (told["event"], told["payload"]["n"]) == ("told", 1)
        assert told["meta"]["id"] == told["payload"]["id"]


@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")  # the client's own
async def test_a_client_comes_back_by_itself_after_the_server_has_closed_its_socket(
    stream: Stream,
) -> None:
    async with connected(stream) as a, connected(stream) as b:
        listener = await Listener(a, "again").subscribe()
        for connection in stream.server._connections:
            connection.close(Closing.FAILED)
        await eventually(lambda: len(listener.states) > 1 and listener.is_subscribed)
        sender = Listener(b, "again")
        await eventually(lambda: b.is_connected)
        await sender.subscribe()
        await sender.channel.send_broadcast("said", {"n": 1})
        assert (await listener.next())["payload"] == {"n": 1}
