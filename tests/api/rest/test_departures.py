"""Clients that leave while Postgres works for them."""

import asyncio

import psycopg

from butterbase.api.settings import ApiSettings
from tests.api.conftest import running
from tests.installation import Installation

ACTIVE = (
    "select count(*) from pg_stat_activity where query like '%v_slow%' and state = 'active'"
    " and datname = current_database() and pid <> pg_backend_pid()"
)


async def test_the_query_of_a_client_that_left_is_cancelled(installation: Installation) -> None:
    installation.as_owner("create view v_slow as select pg_sleep(600)::text as slept")
    async with (
        running(installation, ApiSettings(statement_timeout_s=600)) as api,
        await psycopg.AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn,
    ):

        async def until_active(count: int) -> None:
            while await (await conn.execute(ACTIVE)).fetchone() != (count,):
                pass

        calls = [
            asyncio.create_task(api.client.get("/rest/v1/v_slow", headers=api.service))
            for _ in range(3)
        ]
        async with asyncio.timeout(30):
            await until_active(3)
            for call in calls:
                call.cancel()
            await until_active(0)
        answer = await api.client.get("/rest/v1/", headers=api.service)
        assert answer.status_code == 200
