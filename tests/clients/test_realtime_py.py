"""The unmodified Python client of Supabase against an api worker and the stream process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from realtime.types import RealtimePostgresChangesListenEvent as Event
from realtime.types import RealtimeSubscribeStates as States

from butterbase.api.handover import hand_over_to
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from tests.installation import Installation, installed
from tests.postgres import Databases
from tests.realtime.streaming import ALICE, BOB, DEADLINE_S, Stream, eventually, streaming
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

TODOS = """
    drop table if exists todos;
    create table todos (
      id bigint generated always as identity primary key,
      user_id uuid not null default auth.uid(), title text, tags text[], rank numeric);
    create policy own on todos using (user_id = auth.uid());
"""


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers every plain request with 204."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class Listener:
    """A channel's events as they arrive."""

    def __init__(self, client: AsyncRealtimeClient, topic: str = "todos") -> None:
        self.client = client
        self.channel: AsyncRealtimeChannel = client.channel(topic)
        self.states: list[tuple[States, Exception | None]] = []
        self.system: asyncio.Queue[Any] = asyncio.Queue()
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.channel.on_system(self.system.put_nowait)

    async def subscribe(self, event: Event = Event.All, **binding: Any) -> None:
        self.channel.on_postgres_changes(
            event, self.events.put_nowait, **{"schema": "public", "table": "todos", **binding}
        )
        await self.channel.subscribe(lambda state, error: self.states.append((state, error)))
        assert self.states[0] == (States.SUBSCRIBED, None)

    async def wait_for(self, wanted: States) -> Exception | None:
        await eventually(lambda: self.states[-1][0] is wanted)
        return self.states[-1][1]

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            return dict((await self.events.get())["data"])


class Origin:
    def __init__(self, stream: Stream, url: str) -> None:
        self.stream = stream
        self.url = url

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[AsyncRealtimeClient]:
        client = AsyncRealtimeClient(f"{self.url}/realtime/v1", token)
        await client.connect()
        try:
            yield client
        finally:
            await client.remove_all_channels()

    def insert(self, user_id: str, title: str) -> None:
        self.stream.execute(
            f"insert into todos (user_id, title, tags, rank)"  # noqa: S608  constants
            f" values ('{user_id}', '{title}', '{{a,b}}', 1.50)"
        )


@pytest.fixture(scope="module")
def app(postgres: Databases, installation_template: Installation) -> Iterator[Installation]:
    with installed(postgres, installation_template) as installation:
        yield installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_origin(
    app: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Origin]:
    path = tmp_path_factory.mktemp("stream") / "realtime.sock"
    protocol = hand_over_to(path)
    async with streaming(app, hand_over=path) as stream, serving(no_app, ws=protocol) as url:
        yield Origin(stream, url.replace("http", "ws"))
    protocol.peer.close()


@pytest.fixture
def origin(shared_origin: Origin) -> Origin:
    """An api worker and a stream process, with a new table."""
    shared_origin.stream.execute(TODOS)
    return shared_origin


async def test_a_user_sees_own_changes_and_nobody_elses(origin: Origin) -> None:
    keys = origin.stream.keys
    async with origin.client(keys.user(ALICE)) as a, origin.client(keys.user(BOB)) as b:
        alice, bob = Listener(a), Listener(b)
        await alice.subscribe()
        await bob.subscribe()
        origin.insert(ALICE, "milk")
        origin.insert(BOB, "bread")
        to_alice, to_bob = await alice.next(), await bob.next()
        assert alice.events.empty()
        assert bob.events.empty()
    assert to_alice["record"] == {
        "id": 1,
        "user_id": ALICE,
        "title": "milk",
        "tags": ["a", "b"],
        "rank": 1.5,
    }
    assert to_bob["record"]["title"] == "bread"


async def test_a_delete_that_cannot_be_judged_reaches_nobody(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        await alice.subscribe()
        origin.insert(ALICE, "milk")
        assert (await alice.next())["type"] == "INSERT"
        origin.stream.execute("delete from todos")
        origin.insert(ALICE, "bread")
        assert (await alice.next())["record"]["title"] == "bread"


async def test_a_delete_that_can_be_judged_arrives_with_its_key(origin: Origin) -> None:
    origin.stream.execute("alter table todos replica identity full")
    keys = origin.stream.keys
    async with origin.client(keys.user(ALICE)) as a, origin.client(keys.user(BOB)) as b:
        alice, bob = Listener(a), Listener(b)
        await alice.subscribe(Event.Delete)
        await bob.subscribe(Event.Delete)
        origin.insert(ALICE, "milk")
        origin.insert(BOB, "bread")
        origin.stream.execute("delete from todos")
        assert (await alice.next())["old_record"] == {"id": 1}
        assert (await bob.next())["old_record"] == {"id": 2}


async def test_a_filter_leaves_out_what_does_not_match(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        await alice.subscribe(Event.Insert, filter="title=eq.bread")
        origin.insert(ALICE, "milk")
        origin.insert(ALICE, "bread")
        assert (await alice.next())["record"]["title"] == "bread"


async def test_a_filter_of_several_conditions_and_a_choice_of_columns(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        condition = 'title=ilike."b%,%",rank=gte.1.5,tags=not.is.null'
        await alice.subscribe(Event.Insert, filter=condition, select=["title"])
        for title in ("milk", "Bread", "Bread, butter"):
            origin.insert(ALICE, title)
        data = await alice.next()
    assert data["record"] == {"id": 3, "title": "Bread, butter"}
    assert data["columns"] == [{"name": "id", "type": "int8"}, {"name": "title", "type": "text"}]


async def test_a_change_that_is_too_large_arrives_in_short(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        await alice.subscribe(Event.Insert)
        origin.insert(ALICE, "x" * 2 * 1024**2)
        data = await alice.next()
    assert data["errors"] == ["Error 413: Payload Too Large"]
    assert data["record"] == {"id": 1, "user_id": ALICE, "tags": ["a", "b"], "rank": 1.5}


async def test_a_wrong_filter_is_an_error_of_the_channel(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        await alice.subscribe(filter="nothing=eq.1")
        error = await alice.wait_for(States.CHANNEL_ERROR)
    assert "invalid column for filter nothing" in str(error)


async def test_a_left_channel_receives_nothing_and_can_be_joined_again(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        first, other = Listener(client), Listener(client, "other")
        await first.subscribe()
        await other.subscribe()
        await first.channel.unsubscribe()
        await first.wait_for(States.CLOSED)
        origin.insert(ALICE, "milk")
        assert (await other.next())["record"]["title"] == "milk"
        assert first.events.empty()
        again = Listener(client)
        await again.subscribe()
        origin.insert(ALICE, "bread")
        assert (await again.next())["record"]["title"] == "bread"


async def test_the_confirmation_follows_the_subscription(origin: Origin) -> None:
    async with origin.client(origin.stream.keys.user(ALICE)) as client:
        alice = Listener(client)
        await alice.subscribe()
        async with asyncio.timeout(DEADLINE_S):
            system = await alice.system.get()
    assert system.message == "Subscribed to PostgreSQL"
    assert (system.extension, system.channel) == ("postgres_changes", "todos")


async def test_uvicorn_accepts_the_class(tmp_path: Path) -> None:
    protocol = hand_over_to(tmp_path / "socket")
    config = uvicorn.Config(no_app, ws=protocol)
    config.load()
    assert config.ws_protocol_class is protocol
