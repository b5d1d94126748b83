"""The stream, the functions process and Deno are killed, again and again, as events are written."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.cli.setup import set_up
from tests.cli.processes import free_port
from tests.installation import Installation
from tests.processes import start
from tests.waiting import until

EVENT_COUNT = int(os.environ.get("BUTTERBASE_FUNCTION_EVENTS", "500"))
KILL_COUNT = 12

TABLES = """
create table public.orders (id int primary key, account int not null);
create table public.seen (
  id bigint generated always as identity primary key, order_id int, account int, attempt int
);
create table public.effects (id bigint generated always as identity primary key, order_id int);
"""
# What it has seen is written whenever it is called, the effect once.
HANDLER = """
export default async function handler(req: Request, ctx: any) {
  const event = await req.json();
  const db = ctx.db.asService();
  const { id, account } = event.record;
  const { attempt } = ctx.request;
  await db.from("seen").insert({ order_id: id, account, attempt }).throwOnError();
  await db.from("effects").insert({ order_id: id }).idempotent(`order:${id}`).throwOnError();
  return new Response("done");
}
"""
OPEN = "select count(*) from functions.invocations where status in ('queued', 'running')"
STATES = "select status, count(*) from functions.invocations group by 1 order by 1"


class Running:
    """The processes of an installation, of which some are killed."""

    def __init__(self, installation: Installation, directory: Path, port: int) -> None:
        self._installation = installation
        self._directory = directory
        self._settings = {"port": port, "functions_ready": 2}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        self.processes[name] = start(name, self._installation, self._directory, **self._settings)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def kill_a_deno(self, chance: random.Random) -> None:
        found = list(_denos_below(self.processes["functions serve"].pid))
        if found:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


def _denos_below(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                name = (entry / "comm").read_text()
                if name.startswith("deno"):
                    yield int(entry.name)
                yield from _denos_below(int(entry.name))


@asynccontextmanager
async def running(
    installation: Installation, directory: Path
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    port = free_port()
    found = Running(installation, directory, port)
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    with ExitStack() as stack:
        stack.callback(found.stop)
        for name in ("stream", "functions serve", "api"):
            found.start(name)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"apikey": keys.service_role}, timeout=30
        ) as client:

            async def is_up() -> bool:
                with suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await until(is_up, within_s=60)
            yield found, client


async def write(dsn: str, chance: random.Random) -> None:
    async with await AsyncConnection.connect(dsn) as conn:
        written = 0
        while written < EVENT_COUNT:
            count = min(chance.randint(1, 10), EVENT_COUNT - written)
            await conn.execute(
                "insert into orders select i, mod(i, 7) from generate_series(%s::int, %s::int) i",
                [written + 1, written + count],
            )
            if chance.random() < 0.2:
                await conn.rollback()
                continue
            await conn.commit()
            written += count
            await asyncio.sleep(chance.uniform(0, 0.1))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
async def test_every_event_is_delivered_and_has_its_effect_once(
    installation: Installation, tmp_path: Path
) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311  guards nothing
    print("seed", seed)  # noqa: T201  shown when the test fails
    chance = random.Random(seed)  # noqa: S311  guards nothing
    await set_up(installation.cluster, database=installation.main.name)
    installation.as_owner(TABLES)
    async with (
        running(installation, tmp_path) as (processes, client),
        await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn,
    ):
        answer = await client.post(
            "/v1/main/functions",
            json={
                "name": "on_order",
                "code": HANDLER,
                "permissions": {"service": True},
                "triggers": [
                    {"type": "database", "table": "orders", "events": ["INSERT"],
                     "ordered": True, "max_attempts": 50}
                ],
            },
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        writer = asyncio.create_task(write(installation.main.dsn, chance))
        for _ in range(KILL_COUNT):
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            victim = chance.choice(["stream", "functions serve", "deno", "deno"])
            if victim == "deno":
                processes.kill_a_deno(chance)
            else:
                processes.kill(victim)
                processes.start(victim)
        await writer

        async def one(query: str) -> Any:
            row = await (await conn.execute(query.encode())).fetchone()
            assert row is not None
            return row[0]

        async def is_done() -> bool:
            made = await one("select count(*) from functions.invocations where kind = 'database'")
            return bool(made == EVENT_COUNT and await one(OPEN) == 0)

        await until(is_done, within_s=180)
        states = await (await conn.execute(STATES)).fetchall()
        assert states == [("succeeded", EVENT_COUNT)]
        assert await one("select count(distinct order_id) from seen") == EVENT_COUNT
        assert await one("select count(*) from effects") == EVENT_COUNT
        assert await one("select count(distinct order_id) from effects") == EVENT_COUNT
