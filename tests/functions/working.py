"""Workers over a test's database, with a stand-in for the processes that run functions."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

from psycopg import AsyncConnection

from butterbase.api.apps import keys_of
from butterbase.api.auth.tokens import Tokens
from butterbase.api.functions.runtime.model import (
    CallRequest,
    Completed,
    Failure,
    FunctionVersion,
    Outcome,
)
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.tokens import FunctionTokens
from butterbase.api.functions.versions import Versions
from butterbase.api.functions.work.worker import Worker
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import app_service
from butterbase.sql.pipeline import Executor
from tests.installation import Installation

Handler: TypeAlias = Callable[[FunctionVersion, CallRequest, Any], Awaitable[int | Failure]]
"""Version, request and the body's JSON → a status, or what kept it from one."""

FUNCTION = """
with made as (
  insert into functions.functions (name, timeout_ms, memory_mb) values (%(name)s, 1000, 64)
  returning id
), versioned as (
  insert into functions.versions (function_id, n, entrypoint, files, bundle, checksum)
  select id, 1, 'index.ts', '{}', '', '' from made
)
select id from made
"""


class StandIn:
    """The runtime's `invoke`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.running_count = 0
        self.most_count = 0

    async def invoke(
        self, version: FunctionVersion, request: CallRequest, body: bytes = b""
    ) -> Completed:
        self.running_count += 1
        self.most_count = max(self.most_count, self.running_count)
        try:
            answer = await self._handler(version, request, json.loads(body))
        finally:
            self.running_count -= 1
        failure = answer if isinstance(answer, Failure) else None
        status = answer if isinstance(answer, int) else 500
        context = request.context
        outcome = Outcome(
            version.app_id,
            version.name,
            version.version_id,
            version.revision,
            context.invocation_id,
            context.request_id,
            context.trigger,
            context.attempt,
            status=status,
            started_at=0.0,
            duration_ms=1.0,
            cpu_ms=1.0,
            memory_bytes=1,
            is_cold=False,
            failure=failure,
        )
        return Completed(status, (), b"", outcome)


class App:
    """An app's functions, in its database."""

    def __init__(self, installation: Installation, conn: AsyncConnection) -> None:
        self.installation = installation
        self.conn = conn
        self.executors: list[Executor] = []

    def executor(self) -> Executor:
        made = Executor(
            self.installation.cluster.dsn(app_service("main"), self.installation.main.name),
            connection_count_max=4,
        )
        self.executors.append(made)
        return made

    async def function(self, name: str) -> None:
        async with self.conn.transaction():
            await self.conn.execute(FUNCTION, {"name": name})
            await self.conn.execute("update functions.functions set active_version = 1")

    async def trigger(self, function: str, kind: str, attempts: int = 3, **config: Any) -> str:
        cursor = await self.conn.execute(
            "insert into functions.triggers (function_id, name, kind, config, attempts_max)"
            " select id, %s, %s, %s, %s from functions.functions where name = %s"
            " returning id::text",
            [f"t{len(config)}{kind}", kind, json.dumps(config), attempts, function],
        )
        row = await cursor.fetchone()
        assert row is not None
        return str(row[0])

    async def queue(self, trigger: str, *payloads: Any, key: str | None = None) -> None:
        await self.conn.cursor().executemany(
            "insert into functions.invocations"
            " (function_id, trigger_id, kind, status, key, payload, attempts_max, run_after)"
            " select function_id, id, 'queue', 'queued', %s, %s, attempts_max, now()"
            " from functions.triggers where id = %s",
            [(key, json.dumps(payload), trigger) for payload in payloads],
        )

    async def all(self, query: str) -> list[tuple[Any, ...]]:
        return await (await self.conn.execute(query.encode())).fetchall()

    async def count(self, status: str) -> int:
        cursor = await self.conn.execute(
            "select count(*) from functions.invocations where status = %s", [status]
        )
        rows = await cursor.fetchall()
        return int(rows[0][0])

    def versions(self, executor: Executor) -> Versions:
        return Versions(
            "main",
            executor,
            self.installation.cluster.master_key,
            FunctionsSettings(),
            environment={},
            on_change=lambda _name, _revision: None,
        )

    def worker(self, handler: Handler, *, jobs: int = 8) -> tuple[Worker, StandIn]:
        executor = self.executor()
        app = self.installation.app
        keys = keys_of(self.installation.cluster, "main", app.created_at, ApiSettings())
        stand_in = StandIn(handler)
        worker = Worker(
            "main",
            executor,
            self.versions(executor),
            FunctionTokens(Tokens(keys)),
            stand_in,
            job_count_max=jobs,
            url="http://127.0.0.1:9",
            chance=lambda: 1.0,
        )
        return worker, stand_in

    @asynccontextmanager
    async def working(self, handler: Handler, *, jobs: int = 8) -> AsyncIterator[StandIn]:
        worker, stand_in = self.worker(handler, jobs=jobs)
        task = asyncio.create_task(worker.run())
        try:
            yield stand_in
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def app_of(installation: Installation) -> AsyncIterator[App]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        app = App(installation, conn)
        try:
            yield app
        finally:
            for executor in app.executors:
                await executor.close()
