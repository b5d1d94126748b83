"""Workers' caches on one control database."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from msgspec import Raw
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from butterbase.ai.cache.cache import AnswerCache
from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.seams import Asking, Fresh, Lookup
from butterbase.ai.settings import AiSettings
from butterbase.ai.wire.form import ChatAnswer, Choice, Text, Usage
from butterbase.ai.wire.wires import CLIENT_WIRES
from butterbase.projections.embedder import BatchLimits, EmbedderError, EmbeddingModel
from butterbase.sql.migrate import migrate, read_migrations
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey
from tests.postgres import Database, Databases
from tests.waiting import until

USER = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
OTHER_USER = UUID("11111111-2222-4333-8444-555555555555")

EXACT: dict[str, object] = {}
SEMANTIC: dict[str, object] = {"threshold": 0.9}


class FakeEmbedder:
    """Texts that begin with the same word are near each other."""

    model = EmbeddingModel("fake", 384)
    name = "fake"
    limits = BatchLimits()

    def __init__(self) -> None:
        self.count = 0
        self.is_broken = False

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self.is_broken:
            raise EmbedderError("it is broken")
        self.count += 1
        return np.array([self.vector(text) for text in texts], np.float32)

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        first, *rest = text.lower().split() or [""]
        near = _random(first) + 0.1 * _random(" ".join(rest))
        made: npt.NDArray[np.float32] = (near / np.linalg.norm(near)).astype(np.float32)
        return made

    async def close(self) -> None:
        pass


def _random(text: str) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(text.encode()[:64].ljust(1, b"-"), "big") % 2**63
    vector = np.random.default_rng(seed).standard_normal(384)
    made: npt.NDArray[np.float64] = vector / np.linalg.norm(vector)
    return made


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def answer_of(text: str) -> ChatAnswer:
    return ChatAnswer("chatcmpl-1", "m", 1, (Choice(0, (Text(text),), "stop"),), Usage(10, 2, 12))


def fresh(text: str = "the answer", **changes: Any) -> Fresh:
    made = Fresh(answer_of(text), "provider", "m", Usage(10, 2, 12), 5000, 1.5)
    return msgspec.structs.replace(made, **changes)


def text_of(lookup: Lookup) -> str | None:
    """What was found."""
    if lookup.kept is None:
        return None
    (part,) = lookup.kept.answer.choices[0].parts
    assert isinstance(part, Text)
    return part.text


@dataclass
class Worker:
    app_id: str
    cache: AnswerCache
    embedder: FakeEmbedder
    clock: Clock

    async def find(
        self,
        content: object = "Hello there",
        *,
        rules: object = EXACT,
        endpoint: Endpoint = Endpoint.CHAT,
        body: dict[str, object] | bytes | None = None,
        before: Sequence[object] = (),
        fields: dict[str, object] | None = None,
        **changes: Any,
    ) -> Lookup:
        if body is None:
            turns = [*before, {"role": "user", "content": content}]
            name = "input" if endpoint is Endpoint.RESPONSES else "messages"
            body = {"model": "m", name: turns, **(fields or {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        asking = Asking(
            app_id=self.app_id,
            role="authenticated",
            user_id=USER,
            key_id=None,
            request_id="r",
            endpoint=endpoint,
            model="m",
            targets=(("provider", "m"),),
            body=data,
            cache_rules=Raw(json.dumps(rules).encode()),
        )
        asking = msgspec.structs.replace(asking, **changes)
        request = CLIENT_WIRES[endpoint.wire].decode_request(data)
        return await self.cache.find(asking, request)

    async def ask(self, *args: Any, text: str = "the answer", **kwargs: Any) -> str | None:
        """What the cache answers; where it has nothing, it is given the text to keep."""
        lookup = await self.find(*args, **kwargs)
        if lookup.kept is None:
            await lookup.keep(fresh(text))
        return text_of(lookup)


@dataclass
class Desk:
    database: Database
    dsn: str
    app_id: str
    other_app_id: str

    def entries(self, columns: str = "*") -> list[Any]:
        return self.execute(
            f"select {columns} from butterbase.ai_cache where app_id = %s order by id",  # noqa: S608
            self.app_id,
        )

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        """As the superuser."""
        with psycopg.connect(self.database.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def worker(
        self, *, is_running: bool = True, settings: AiSettings | None = None
    ) -> AsyncIterator[Worker]:
        executor = Executor(self.dsn, connection_count_max=4)
        embedder, clock = FakeEmbedder(), Clock()

        async def open_embedder() -> FakeEmbedder:
            return embedder

        cache = AnswerCache(
            executor,
            self.dsn,
            MasterKey(b"k" * 32),
            open_embedder,
            settings or AiSettings(),
            clock=clock,
        )
        running = asyncio.create_task(cache.run()) if is_running else None
        if is_running:
            await until(lambda: cache._listener.is_listening)
        try:
            yield Worker(self.app_id, cache, embedder, clock)
        finally:
            if running is not None:
                running.cancel()
                await asyncio.wait([running])
            await cache.close()
            await executor.close()


@pytest.fixture(scope="session")
def cache_database(postgres: Databases) -> Iterator[Database]:
    """With the control schema; each test has apps of its own."""
    database = postgres.create()

    async def prepare() -> None:
        folder = files("butterbase.sql").joinpath("migrations") / "control"
        async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
            await migrate(conn, read_migrations(folder))

    asyncio.run(prepare())
    yield database
    postgres.drop(database.name)


_numbers = itertools.count()


@pytest.fixture
def desk(cache_database: Database) -> Desk:
    options = "-c role=butterbase_service -c search_path=pg_catalog,pg_temp"
    dsn = make_conninfo(cache_database.dsn, options=options)
    desk = Desk(cache_database, dsn, f"app_{next(_numbers)}", f"app_{next(_numbers)}")
    for app_id in (desk.app_id, desk.other_app_id):
        desk.execute("insert into butterbase.apps values (%s, %s)", app_id, app_id)
    return desk


@pytest.fixture
async def worker(desk: Desk) -> AsyncIterator[Worker]:
    async with desk.worker() as worker:
        yield worker


@pytest.fixture
async def other(desk: Desk) -> AsyncIterator[Worker]:
    """Another worker."""
    async with desk.worker() as worker:
        yield worker
