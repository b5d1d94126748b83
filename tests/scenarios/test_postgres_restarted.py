"""Postgres restarts under load: the api says so and recovers, the stream goes on where it was."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.sql.embedded import EmbeddedPostgres
from tests.installation import Installation, install
from tests.postgres import Databases
from tests.processes import running
from tests.waiting import until

OPEN_TABLE = """
create table notes (id int primary key);
create policy all_of_it on notes to anon using (true) with check (true);
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    tmp_path.chmod(0o711)
    server = EmbeddedPostgres(tmp_path / "pg", password="secret")
    yield server
    server.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Load:
    """Inserts one row after the other and keeps what was answered."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.kept: set[int] = set()
        self.in_doubt: set[int] = set()
        self.statuses: list[int] = []
        self.retry_after: set[str | None] = set()

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            self.in_doubt.add(number)
            answer = await self._client.post("/rest/v1/notes", json={"id": number})
            self.statuses.append(answer.status_code)
            if answer.status_code == 201:
                self.kept.add(number)
                self.in_doubt.remove(number)
            else:
                self.retry_after.add(answer.headers.get("Retry-After"))
            await asyncio.sleep(0.002)


async def test_a_restart_costs_503s_and_nothing_else(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    installation = await asyncio.to_thread(_install, server.start())
    installation.as_owner(OPEN_TABLE)
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    port = free_port()
    with (
        running("stream", installation, tmp_path),
        running("api", installation, tmp_path, port=port),
    ):
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"apikey": keys.anon}, timeout=30
        ) as client:

            async def is_ready() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await until(is_ready)
            load = Load(client)
            task = asyncio.create_task(load.run())
            await until(lambda: len(load.kept) > 20)
            await asyncio.to_thread(server.stop)
            await until(lambda: load.statuses[-3:] == [503] * 3)
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            before = len(load.kept)
            await asyncio.to_thread(server.start)
            await until(lambda: len(load.kept) > before + 20)
            await until(is_ready)
            task.cancel()
    assert set(load.statuses) == {201, 503}
    assert load.retry_after == {"1"}
    with psycopg.connect(installation.main.dsn) as conn:
        stored = {row[0] for row in conn.execute("select id from notes").fetchall()}
    assert load.kept <= stored, "what was answered 201 is there"
    assert stored <= load.kept | load.in_doubt, "and nothing that was not asked for"


def _install(server_dsn: str) -> Installation:
    with closing(Databases(server_dsn)) as postgres:
        return install(postgres, postgres.create(), postgres.create())
