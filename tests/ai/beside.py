"""A gateway with all that may stand beside a call, for tests over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from psycopg.conninfo import make_conninfo

from butterbase.ai.cache.cache import AnswerCache
from butterbase.ai.guards.guards import GuardRail
from butterbase.ai.prompts.store import PromptStore
from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey
from tests.ai.cache.conftest import FakeEmbedder
from tests.ai.conftest import OTHER_USER, USER, Harness, running_gateway, until
from tests.ai.upstream import Upstream
from tests.postgres import Database

USERS = {"x-test-role": "authenticated", "x-test-user": USER}
OTHERS = {"x-test-role": "authenticated", "x-test-user": OTHER_USER}


@asynccontextmanager
async def gateway_with_all(control: Database, upstream: Upstream) -> AsyncIterator[Harness]:
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    dsn = make_conninfo(control.dsn, options="-c role=butterbase_service")
    executor = Executor(dsn, connection_count_max=4)
    embedder = FakeEmbedder()

    async def open_embedder() -> FakeEmbedder:
        return embedder

    cache = AnswerCache(executor, dsn, MasterKey(b"k" * 32), open_embedder, settings)
    seams = Seams(cache, GuardRail(), PromptStore(executor))
    running = asyncio.create_task(cache.run())
    await until(lambda: cache._listener.is_listening)
    async with running_gateway(control, settings, seams=seams) as harness:
        yield harness
    running.cancel()
    await asyncio.wait([running])
    await cache.close()
    await executor.close()


async def configure(harness: Harness, **config: object) -> None:
    answer = await harness.http.put(f"{harness.path}/ai/config", json=config)
    assert answer.status_code == 200, answer.text


async def ask(
    harness: Harness, content: object = "Hi", headers: dict[str, str] = USERS, **fields: object
) -> httpx.Response:
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": content}], **fields}
    return await harness.http.post(harness.chat_path, json=body, headers=headers)


def cache_of(response: httpx.Response) -> str:
    return response.headers["x-butterbase-cache"]


async def kept(harness: Harness, count: int = 1) -> None:
    """Wait for answers to be kept: a client does not."""
    await until(
        lambda: (
            len(
                harness.execute(
                    "select 1 from butterbase.ai_cache where app_id = %s", harness.app_id
                )
            )
            >= count
        )
    )
