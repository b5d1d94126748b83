"""Commit to handler: rows that are inserted at a steady rate, each of which invokes a function.

The processes are the real ones over the embedded Postgres, fsync on. A change's time is Postgres's
commit timestamp, which the event carries in whole milliseconds and which is taken before the commit
is flushed: the figures are up to a millisecond too long, and never too short.
"""

import asyncio
import time
from contextlib import ExitStack
from typing import Final

import httpx
import psycopg

from butterbase.cli.setup import set_up

from .installation import (
    FUNCTIONS,
    STREAM,
    Installation,
    environment,
    installed,
    running,
    serving,
)
from .statistics import percentile

EVENTS_PER_S: Final = 50
WARM_UP_COUNT: Final = 50
DONE_WITHIN_S: Final = 60.0

SCHEMA: Final = (
    "create table events (id bigint generated always as identity primary key, body text)"
)
HANDLER: Final = """
export default async function handler(req: Request) {
  const now = performance.timeOrigin + performance.now();
  const event = await req.json();
  console.log(`lag ${now - Date.parse(event.commit_timestamp)}`);
  return new Response("ok");
}
"""
LAGS: Final = """
select split_part(message, ' ', 2)::float8 from functions.logs where message like 'lag %'
"""


def measure(seconds: int = 10) -> dict[str, float]:
    with installed() as installation, ExitStack() as stack:
        asyncio.run(set_up(installation.cluster))
        with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
        api = stack.enter_context(serving(installation))
        for command in (STREAM, FUNCTIONS):
            settings = environment(installation, api.port)
            stack.enter_context(running(installation, command, settings))
        answer = httpx.post(
            f"{api.url}/v1/main/functions",
            json={
                "name": "lag",
                "code": HANDLER,
                "triggers": [{"type": "database", "table": "events", "events": ["INSERT"]}],
            },
            headers={"apikey": api.keys.service_role},
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
        _lags(installation, WARM_UP_COUNT)
        lags = _lags(installation, EVENTS_PER_S * seconds)
    figures = {f"commit_to_handler_p{p}_ms": percentile(lags, p) for p in (50, 90, 99)}
    described = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    print(
        f"triggers: {EVENTS_PER_S} events/s, {len(lags)} handled: {described}, max {lags[-1]:.1f}"
    )
    return figures


def _lags(installation: Installation, count: int) -> list[float]:
    """Milliseconds, ascending. Raises TimeoutError when an event is not handled."""
    with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
        conn.execute("truncate events restart identity")
        started_s = time.perf_counter()
        for number in range(count):
            early_s = started_s + number / EVENTS_PER_S - time.perf_counter()
            if early_s > 0:
                time.sleep(early_s)
            conn.execute("insert into events (body) values ('an event of usual length')")
    admin_dsn = installation.cluster.admin_dsn(installation.app.database)
    deadline_s = time.monotonic() + DONE_WITHIN_S
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        while len(rows := conn.execute(LAGS).fetchall()) < count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{len(rows)} of {count} events were handled")
            time.sleep(0.1)
        conn.execute("truncate functions.logs")
    return sorted(lag for (lag,) in rows)
