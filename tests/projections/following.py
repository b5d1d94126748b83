"""A consumer with projections, in the test's loop."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg import AsyncConnection

from butterbase.cli.setup import PUBLICATION
from butterbase.ingest.consumer import Consumer, Reader
from butterbase.ingest.rereading import Log
from butterbase.projections.runner import ProjectionRunner
from butterbase.sql.cluster import Cluster, LoginRole
from tests.ingest.conftest import FAST

CALL = {
    "endpoint": "chat/completions",
    "provider": "p",
    "model": "m",
    "stream": False,
    "status": "ok",
    "http_status": 200,
    "error_code": None,
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "total_tokens": 12,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "usage_source": "reported",
    "latency_ms": 1,
    "first_token_ms": None,
}


async def insert_call(conn: AsyncConnection, *, type: str = "ai.call", **data: object) -> None:  # noqa: A002
    await conn.execute(
        "insert into butterbase.events (app_id, type, data) values ('main', %s, %s)",
        [type, json.dumps(CALL | data)],
    )


def log_of(cluster: Cluster, database: str) -> Log:
    """Of a slot that is named as the database."""
    return Log(cluster.dsn(LoginRole.STREAM, database), database, (PUBLICATION,))


@asynccontextmanager
async def reading(log: Log, *readers: Reader) -> AsyncIterator[Consumer]:
    consumer = Consumer(
        log.dsn, slot=log.slot, publications=log.publications, readers=readers, settings=FAST
    )
    tasks = [asyncio.create_task(consumer.run())]
    tasks += [
        asyncio.create_task(reader.run())
        for reader in readers
        if isinstance(reader, ProjectionRunner)
    ]
    try:
        yield consumer
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
