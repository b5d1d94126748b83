"""Clients that leave while Postgres works for them."""

import asyncio

import psycopg

from butterbase.api.settings import ApiSettings
from tests.api.conftest import running
from tests.installation import Installation
from tests.waiting import until

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

        async def active_count() -> int:
            row = await (await conn.execute(ACTIVE)).fetchone()
            assert row is not None
            return int(row[0])

        async def are_active() -> bool:
            return await active_count() == 3

        async def are_cancelled() -> bool:
            return await active_count() == 0

        calls = [
            asyncio.create_task(api.client.get("/rest/v1/v_slow", headers=api.service))
            for _ in range(3)
        ]
        await until(are_active)
        for call in calls:
            call.cancel()
        await until(are_cancelled)
        answer = await api.client.get("/rest/v1/", headers=api.service)
        assert answer.status_code == 200
