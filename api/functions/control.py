"""What stands beside the runtime in the process that runs functions: apps, triggers, records.

runtime ── version()? ──► Versions ──► functions.versions
        ── ended, log ──► CallRecorder ──► functions.invocations, functions.logs
        ── perform() ──► PlatformOperations
        ◄── invoke ── Worker ◄── rows by the projection, cron, and queues
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Final

from butterbase.api.apps import keys_of
from butterbase.api.auth.tokens import Tokens
from butterbase.api.errors import UnknownAppError
from butterbase.api.functions.operations import PlatformOperations
from butterbase.api.functions.recorder import CallRecorder
from butterbase.api.functions.runtime.model import (
    CallContext,
    FunctionVersion,
    LogLine,
    Outcome,
)
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.tokens import FunctionTokens
from butterbase.api.functions.versions import Versions
from butterbase.api.functions.work.app import FunctionApp
from butterbase.api.functions.work.leadership import Leadership
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import Cluster, LoginRole, app_service
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

APPS_S: Final = 5.0
"""How often to look for apps that came or went."""
RETRY_S: Final = 5.0

_APPS: Final = Statement(
    b"select id, database, extract(epoch from created_at) from butterbase.apps order by id"
)


class Control:
    """The runtime's FunctionSource, Recorder and Operations."""

    def __init__(self, cluster: Cluster, settings: FunctionsSettings, api: ApiSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._api = api
        self._control = Executor(
            cluster.dsn(LoginRole.SERVICE, cluster.control_database), connection_count_max=2
        )
        self._leadership = Leadership(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
        self._recorder = CallRecorder(self._executor_of)
        self._operations = PlatformOperations(self._executor_of, on_queued=self._queued)
        self._apps: dict[str, FunctionApp] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._finding: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        """Of two looks at once the older could undo what the newer has found."""
        self._runtime: Runtime | None = None

    async def open(self) -> None:
        """Nothing is asked before it is needed."""

    async def close(self) -> None:
        for app in self._apps.values():
            await app.close()
        await self._control.close()

    # What the runtime asks

    async def version(self, app_id: str, name: str, revision: str | None) -> FunctionVersion:
        """Raises UnknownAppError, FunctionNotFoundError, DatabaseUnavailableError."""
        app = self._apps.get(app_id) or await self._find(app_id)
        return await app.versions.get(name)

    def log(self, version: FunctionVersion, context: CallContext, line: LogLine) -> None:
        self._recorder.log(version, context, line)

    def ended(self, outcome: Outcome) -> None:
        self._recorder.ended(outcome)

    async def perform(
        self, version: FunctionVersion, context: CallContext, name: str, arguments: Any
    ) -> Any:
        return await self._operations.perform(version, context, name, arguments)

    # What others tell

    def poked(self, app_id: str, kind: str, name: str) -> None:
        app = self._apps.get(app_id)
        if app is None:
            return  # it is found by the first call, or within seconds
        if kind == "deployed":
            app.deployed(name)
        else:
            app.queued()

    async def run(self, runtime: Runtime) -> None:
        """Work for all apps, until cancelled."""
        self._runtime = runtime
        helpers = [
            asyncio.create_task(self._leadership.run()),
            asyncio.create_task(self._recorder.run()),
        ]
        try:
            while True:
                try:
                    await self._look()
                except ButterbaseError as error:
                    logger.warning("apps are not known: %s; trying again", error)
                await asyncio.sleep(APPS_S)
        finally:
            tasks = [*self._tasks.values(), *helpers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.clear()

    # Apps

    async def _executor_of(self, app_id: str) -> Executor:
        app = self._apps.get(app_id) or await self._find(app_id)
        return app.executor

    async def _find(self, app_id: str) -> FunctionApp:
        """Raises UnknownAppError, DatabaseUnavailableError."""
        if self._finding is None:
            self._finding = asyncio.create_task(self._look())
            self._finding.add_done_callback(self._found)
        await asyncio.shield(self._finding)
        app = self._apps.get(app_id)
        if app is None:
            raise UnknownAppError(f"there is no app {app_id[:100]}")
        return app

    def _found(self, _: "asyncio.Task[None]") -> None:
        self._finding = None

    async def _look(self) -> None:
        async with self._looking:
            await self._look_once()

    async def _look_once(self) -> None:
        (result,) = await self._control.run(_APPS)
        there = set()
        for row in result.rows():
            app_id, database, created = ((value or b"").decode() for value in row)
            there.add(app_id)
            if app_id not in self._apps:
                created_at = datetime.fromtimestamp(float(created), tz=UTC)
                self._apps[app_id] = self._made(app_id, database, created_at)
            if self._runtime is not None and app_id not in self._tasks:
                task = asyncio.create_task(self._keep(self._apps[app_id], self._runtime))
                self._tasks[app_id] = task
        for app_id in self._apps.keys() - there:
            await self._forget(app_id)

    async def _forget(self, app_id: str) -> None:
        app, task = self._apps.pop(app_id), self._tasks.pop(app_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._runtime is not None:
            self._runtime.retire(app_id)
        await app.close()

    async def _keep(self, app: FunctionApp, runtime: Runtime) -> None:
        while True:
            try:
                await app.run(runtime)
            except Exception:
                logger.exception("app %s: its triggers are not worked on", app.id)
            await asyncio.sleep(RETRY_S)

    def _made(self, app_id: str, database: str, created_at: datetime) -> FunctionApp:
        keys = keys_of(self._cluster, app_id, created_at, self._api)
        executor = Executor(
            self._cluster.dsn(app_service(app_id), database), connection_count_max=6
        )
        url = self._api.url

        def retire(name: str, revision: str | None) -> None:
            if self._runtime is not None:
                self._runtime.retire(app_id, name, keep=revision)

        versions = Versions(
            app_id,
            executor,
            self._cluster.master_key,
            self._settings,
            environment={
                "BUTTERBASE_APP_ID": app_id,
                "BUTTERBASE_API_URL": url,
                "BUTTERBASE_ANON_KEY": keys.anon,
                "SUPABASE_URL": f"{url}/v1/{app_id}",
                "SUPABASE_ANON_KEY": keys.anon,
            },
            on_change=retire,
        )
        return FunctionApp(
            app_id,
            executor,
            versions,
            FunctionTokens(Tokens(keys)),
            self._settings,
            self._leadership,
            url=url,
        )

    def _queued(self, app_id: str) -> None:
        app = self._apps.get(app_id)
        if app is not None:
            app.queued()
