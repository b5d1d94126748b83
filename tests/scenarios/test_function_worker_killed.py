"""The functions process is killed with -9 between the claim of an invocation and its effect."""

from pathlib import Path
from typing import Any

import httpx
from psycopg import AsyncConnection

from butterbase.cli.setup import set_up
from tests.installation import Installation
from tests.scenarios.test_functions_killed import Running, running
from tests.waiting import until

TABLES = """
create table public.seen (id bigint generated always as identity primary key, attempt int);
create table public.effects (id bigint generated always as identity primary key, event int);
create table public.gate (is_open bool not null);
insert into public.gate values (false);
"""
# It waits where it was claimed, and where its effect is written and nobody was told of it yet.
HANDLER = """
export default async function handler(req: Request, ctx: any) {
  const { body } = await req.json();
  const db = ctx.db.asService();
  const wait = async () => {
    for (;;) {
      const { data } = await db.from("gate").select();
      if (data[0].is_open) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  if (body.waits === "before") await note();
  if (body.waits === "before") await wait();
  await db.from("effects").insert({ event: body.event }).idempotent(`event:${body.event}`)
    .throwOnError();
  if (body.waits === "after") await note();
  if (body.waits === "after") await wait();
  return new Response("done");

  async function note() {
    await db.from("seen").insert({ attempt: ctx.request.attempt }).throwOnError();
  }
}
"""
SEND = """
export default async function handler(req: Request, ctx: any) {
  return Response.json(await ctx.queue.send("work", await req.json()));
}
"""
STATES = "select status, attempts, attempts_max from functions.invocations where kind = 'queue'"
# As time does it.
END_LEASES = "update functions.invocations set leased_until = now() where status = 'running'"


async def test_a_worker_that_is_killed_between_claim_and_effect(
    installation: Installation, tmp_path: Path
) -> None:
    await _is_done_once_though_killed(installation, tmp_path, "before")


async def test_a_worker_that_is_killed_between_effect_and_record(
    installation: Installation, tmp_path: Path
) -> None:
    await _is_done_once_though_killed(installation, tmp_path, "after")


async def _is_done_once_though_killed(
    installation: Installation, directory: Path, waits: str
) -> None:
    await set_up(installation.cluster, database=installation.main.name)
    installation.as_owner(TABLES)
    async with (
        running(installation, directory) as (processes, client),
        await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn,
    ):

        async def all_of(query: str) -> list[tuple[Any, ...]]:
            return await (await conn.execute(query.encode())).fetchall()

        async def seen_count(count: int) -> bool:
            return len(await all_of("select from seen")) == count

        async def is_done() -> bool:
            return [row[0] for row in await all_of(STATES)] == ["succeeded"]

        await _deploy(client)
        await _send(processes, client, {"event": 7, "waits": waits})
        await until(lambda: seen_count(1), within_s=60)
        assert await all_of(STATES) == [("running", 1, 3)]
        processes.kill("functions serve")
        assert await all_of(STATES) == [("running", 1, 3)]
        await conn.execute(END_LEASES)
        processes.start("functions serve")
        await until(lambda: seen_count(2), within_s=60)
        # Who was killed has the lease no more, and is told so should it come back.
        assert await all_of(STATES) == [("running", 2, 3)]
        await conn.execute("update gate set is_open = true")
        await until(is_done, within_s=60)
        assert await all_of("select attempt from seen order by id") == [(1,), (2,)]
        assert await all_of("select event from effects") == [(7,)]


async def _deploy(client: httpx.AsyncClient) -> None:
    for body in (
        {"name": "sender", "code": SEND},
        {
            "name": "worker",
            "code": HANDLER,
            "permissions": {"service": True},
            "triggers": [{"type": "queue", "queue": "work", "max_attempts": 3}],
        },
    ):
        answer = await client.post("/v1/main/functions", json=body)
        assert answer.status_code == 201, answer.text


async def _send(processes: Running, client: httpx.AsyncClient, message: dict[str, Any]) -> None:
    assert processes.processes["functions serve"].poll() is None

    async def is_sent() -> bool:
        answer = await client.post("/functions/v1/sender", json=message)
        assert answer.status_code in (200, 502), answer.text  # 502: it is not up yet
        return answer.status_code == 200

    await until(is_sent, within_s=60)
