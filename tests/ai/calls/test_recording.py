"""A call's event when the control database's connections are lost while the provider answers."""

import asyncio

import psycopg

from butterbase.ai.settings import AiSettings
from tests.ai.conftest import running_gateway
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
        response = await harness.chat()
        assert (response.status_code, response.json()) == (200, COMPLETION)
        assert (await harness.the_event())["status"] == "ok"
