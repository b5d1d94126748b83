"""A call's event when the control database's connections are lost while the provider answers."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import psycopg
import pytest

from butterbase.ai.gateway import Gateway
from butterbase.ai.settings import AiSettings
from tests.ai.conftest import Harness, running_gateway
from tests.ai.upstream import COMPLETION, Received, Upstream, answer
from tests.postgres import Database, Databases


async def test_an_event_is_written_although_every_connection_was_terminated(
    own_control: Database, upstream: Upstream, postgres: Databases
) -> None:
    def terminate() -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as conn:
            conn.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                [own_control.name],
            )

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(terminate)
        await answer(200, COMPLETION)(request, writer)

    upstream.script = script
    async with running_gateway(own_control, AiSettings(ai_base_url=upstream.base_url)) as harness:
        pool = harness.gateway._pool
        async with AsyncExitStack() as held:
            for _ in range(pool.max_size):
                await held.enter_async_context(pool.connection())
        response = await harness.chat()
        assert (response.status_code, response.json()) == (200, COMPLETION)
        assert (await harness.the_event())["status"] == "ok"


async def test_an_event_whose_insert_was_not_confirmed_is_there_once(
    harness: Harness, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script = answer(200, COMPLETION)
    insert = Gateway._insert
    attempts: list[object] = []

    async def insert_and_lose(gateway: Gateway, event: Mapping[str, object]) -> None:
        await insert(gateway, event)
        attempts.append(event)
        if len(attempts) == 1:
            raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(Gateway, "_insert", insert_and_lose)
    assert (await harness.chat()).status_code == 200
    assert len(attempts) == 2
    assert len(harness.events()) == 1
