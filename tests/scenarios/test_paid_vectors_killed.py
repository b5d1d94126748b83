"""The stream process is killed while a provider makes vectors: what was paid for is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection

from butterbase.ai.config.configs import AiConfigChange, AiConfigs
from butterbase.ai.embedders.apps import LIMITS
from butterbase.ai.settings import AiSettings
from butterbase.cli.setup import set_up
from butterbase.projections.indexes.lanes import CONCURRENCY
from butterbase.sql.cluster import LoginRole
from butterbase.sql.pipeline import Executor
from tests.ai.upstream import Received, Upstream, answer, running_upstream
from tests.installation import Installation
from tests.scenarios.processes import StreamProcesses
from tests.waiting import until

PASSAGES = 300
TOKENS = 10
NANOS = TOKENS * 20
"""Of a call."""
TEXT = "\n\n".join(
    f"Number {number} " + "says as much as fits in. " * 9 for number in range(PASSAGES)
)


class Provider:
    """Answers so many calls, and then holds the others until told."""

    def __init__(self, upstream: Upstream, *, held_after: int) -> None:
        self.answered: Counter[str] = Counter()
        self.answered_count = 0
        self.held = 0
        self.go_on = asyncio.Event()
        self._held_after = held_after
        upstream.script = self._serve

    async def _serve(self, request: Received, writer: asyncio.StreamWriter) -> None:
        texts: list[str] = request.json()["input"]
        if self.answered_count >= self._held_after and not self.go_on.is_set():
            self.held += 1
            await self.go_on.wait()
        self.answered_count += 1
        self.answered.update(texts)
        data = [{"index": at, "embedding": [1.0, len(text)]} for at, text in enumerate(texts)]
        usage = {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
        await answer(200, {"data": data, "model": "embed-a", "usage": usage})(request, writer)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


@pytest.fixture
def streams(
    installation: Installation,
    control: AsyncConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StreamProcesses]:
    monkeypatch.setenv("BUTTERBASE_AI_PRIVATE_BASE_URLS", "true")
    streams = StreamProcesses(installation, control, tmp_path)
    yield streams
    streams.stop()


async def configure(installation: Installation, base_url: str) -> None:
    """One provider, and one model."""
    cluster = installation.cluster
    executor = Executor(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
    configs = AiConfigs(executor, cluster.master_key, AiSettings(ai_private_base_urls=True))
    target = {"provider": "p", "model": "embed-a", "price": {"input": 0.02, "output": 0}}
    change = {
        "providers": {"p": {"kind": "openai_compatible", "baseUrl": base_url}},
        "routes": [{"match": "small", "targets": [target], "retries": {"count": 0}}],
    }
    await configs.change("main", msgspec.convert(change, AiConfigChange))
    await configs.close()
    await executor.close()


async def test_vectors_that_a_provider_made_are_not_bought_again(
    installation: Installation,
    control: AsyncConnection,
    streams: StreamProcesses,
    upstream: Upstream,
) -> None:
    provider = Provider(upstream, held_after=2)
    await set_up(installation.cluster, database=installation.main.name)
    await configure(installation, upstream.base_url)
    installation.as_owner(
        "create table public.posts (id int primary key, body text);"
        "select ai.index('public.posts', columns => '{body}', model => 'small', chunk_tokens => 64,"
        " overlap_tokens => 0)"
    )
    dsn = installation.main.dsn
    async with await AsyncConnection.connect(dsn, autocommit=True) as main:
        await main.execute("insert into public.posts values (1, %s)", [TEXT])

        async def one(statement: str, conn: AsyncConnection = main) -> Any:
            row = await (await conn.execute(statement.encode())).fetchone()
            assert row is not None
            return row[0]

        async def is_in_the_middle() -> bool:
            kept = await one("select count(*) from ai.staged_vectors")
            paid = await one("select count(*) from butterbase.events", control)
            # A vector that came a moment ago and is not kept yet may well be bought again.
            return bool(provider.held and kept == provider.answered.total() and paid == 2)

        streams.start()
        await until(is_in_the_middle, within_s=120)
        kept = {text for text, count in provider.answered.items() if count}
        streams.kill(await streams.leader())
        provider.go_on.set()
        streams.start()

        async def is_published() -> bool:
            return bool(await one("select row_count from ai.index_versions") == 1)

        await until(is_published, within_s=120)
        assert await one("select count(*) from ai.index_1") >= PASSAGES
        assert await one("select count(*) from ai.staged_vectors") == 0

        bought_twice = {text for text, count in provider.answered.items() if count > 1}
        assert not bought_twice & kept
        # The calls that were under way: their vectors came to nobody.
        assert len(bought_twice) <= CONCURRENCY * LIMITS.texts_max

        async def are_written() -> bool:
            paid = await one(
                "select count(*) from butterbase.events where data ->> 'status' = 'ok'", control
            )
            # Those that were held ended with the process: they are told as lost, later.
            return bool(paid == len(upstream.received) - provider.held)

        await until(are_written)
    found = await (
        await control.execute(
            "select count(*), count(distinct call_id), sum((data ->> 'cost_nanos')::bigint)"
            " from butterbase.events where data ->> 'status' = 'ok'"
        )
    ).fetchone()
    count = len(upstream.received) - provider.held
    assert found == (count, count, count * NANOS)
