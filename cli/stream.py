"""`butterbase stream`: the log's reader, and all that follows from it, in one event loop.

control database's log → usage; new apps
each app's log         → realtime subscribers; chunks, and their vectors; schema changes
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence

import psycopg
import uvloop
from psycopg import AsyncConnection
from psycopg.rows import class_row

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.api.apps import keys_of
from butterbase.api.auth.tokens import Tokens
from butterbase.cli.runtime import handover_path, models_dir, open_cluster
from butterbase.cli.settings import Settings
from butterbase.cli.setup import PUBLICATION, slot_name
from butterbase.ingest.changes import Commit, Insert
from butterbase.ingest.consumer import Consumer, Reader
from butterbase.ingest.lsn import LSN
from butterbase.ingest.slot import ensure_slot
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.runner import ProjectionRunner
from butterbase.projections.schema_announcer import SchemaAnnouncer
from butterbase.projections.sweeper import Sweeper
from butterbase.projections.usage import UsageProjection
from butterbase.projections.vectors import VectorWorker
from butterbase.realtime.connection import AppRealtime
from butterbase.realtime.hub import Hub
from butterbase.realtime.server import RealtimeServer
from butterbase.sql.apps import App
from butterbase.sql.claims import Claims
from butterbase.sql.cluster import Cluster, LoginRole, app_authenticator
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor

logger = logging.getLogger(__name__)

RETRY_S = 0.5
APP_RETRY_S = 10.0

APPS = ("butterbase", "apps")

POLICY_TIMEOUT_MS = 2_000
"""A policy that takes longer to judge a batch of changes shows none of them."""

_APPS = "select id, database, created_at from butterbase.apps order by id"


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingError, SlotError."""
    uvloop.run(_serve(open_cluster(settings), settings))


async def _serve(cluster: Cluster, settings: Settings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    embedder = LazyEmbedder(settings.embedder, models_dir(settings))
    streams = Streams(cluster, settings, embedder)
    server = RealtimeServer(streams.realtime.get)
    server.listen_hand_over(handover_path(settings))
    if settings.stream.stream_port:
        await server.listen(settings.stream.stream_host, settings.stream.stream_port)
    running = asyncio.create_task(streams.run())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await server.close()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await embedder.close()


class Streams:
    """The consumers of all databases. The control database's log tells of new apps."""

    def __init__(self, cluster: Cluster, settings: Settings, embedder: LazyEmbedder) -> None:
        self._cluster = cluster
        self._settings = settings
        self._embedder = embedder
        self._started: set[str] = set()
        self._apps = asyncio.Queue[App]()
        self.realtime: dict[str, AppRealtime] = {}
        """By app id, what its sockets need; there as soon as the app's log is read."""

    async def run(self) -> None:
        """Read all logs until cancelled. Raises SlotError, and what else ends a consumer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_control(group))
                while True:
                    app = await self._apps.get()
                    if app.id not in self._started:
                        self._started.add(app.id)
                        group.create_task(self._keep_app(app))
        except* Exception as failures:
            raise failures.exceptions[0] from None

    async def _run_control(self, group: asyncio.TaskGroup) -> None:
        database = self._cluster.control_database
        await self._ensure_slot(database)
        # Read after the slot is there: an app made from now on is in the log.
        for app in await self._list_apps():
            self._apps.put_nowait(app)
        usage = ProjectionRunner(
            UsageProjection(),
            self._dsn(database),
            on_applied=lambda: consumer.position_moved(),
        )
        consumer = self._consumer(database, usage, _NewApps(self._on_new_app))
        group.create_task(usage.run())
        group.create_task(Sweeper(self._dsn(database)).run())
        await consumer.run()

    async def _keep_app(self, app: App) -> None:
        """Read the app's log; what ends that is this app's trouble and no other's."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    await self._run_app(app, group)
            except* Exception as failures:
                for failure in failures.exceptions:
                    hint = getattr(failure, "hint", None)
                    logger.error("app %s: its log is not read: %s (%s)", app.id, failure, hint)
            self.realtime.pop(app.id, None)
            await asyncio.sleep(APP_RETRY_S)

    async def _run_app(self, app: App, group: asyncio.TaskGroup) -> None:
        await self._ensure_slot(app.database)
        dsn = self._dsn(app.database)
        vectors = VectorWorker(self._embedder.get, dsn)

        def on_applied() -> None:
            vectors.wake()
            consumer.position_moved()

        embeddings = ProjectionRunner(Embeddings(), dsn, on_applied=on_applied)
        caller = app_authenticator(app.id)
        executor = Executor(
            self._cluster.dsn(caller, app.database, statement_timeout_ms=POLICY_TIMEOUT_MS)
        )
        hub = Hub(executor, wait_log=lambda: consumer.wait_connected())
        announcer = SchemaAnnouncer(app.id, self._dsn(self._cluster.control_database))
        consumer = self._consumer(app.database, embeddings, hub, announcer)
        for runner in (vectors, embeddings, hub, announcer):
            group.create_task(runner.run())
        self.realtime[app.id] = AppRealtime(self._authenticate(app), hub)
        try:
            await consumer.run()
        finally:
            await executor.close()

    def _authenticate(self, app: App) -> Callable[[str], Claims]:
        keys = keys_of(self._cluster, app.id, app.created_at, self._settings.api)
        tokens = Tokens(keys)
        return lambda token: tokens.verify(token, now_s=time.time())

    def _consumer(self, database: str, *readers: Reader) -> Consumer:
        return Consumer(
            self._dsn(database),
            slot=slot_name(database),
            publications=[PUBLICATION],
            readers=readers,
        )

    async def _ensure_slot(self, database: str) -> None:
        """Wait for a database that is away."""
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._dsn(database), autocommit=True
                ) as conn:
                    await ensure_slot(conn, slot_name(database))
                return
            except (psycopg.OperationalError, DatabaseUnavailableError) as error:
                logger.warning("%s: %s; trying again", database, error)
                await asyncio.sleep(RETRY_S)

    async def _list_apps(self) -> Sequence[App]:
        dsn = self._dsn(self._cluster.control_database)
        async with (
            await AsyncConnection.connect(dsn, autocommit=True) as conn,
            conn.cursor(row_factory=class_row(App)) as cursor,
        ):
            await cursor.execute(_APPS)
            return await cursor.fetchall()

    async def _on_new_app(self) -> None:
        for app in await self._list_apps():
            self._apps.put_nowait(app)

    def _dsn(self, database: str) -> str:
        return self._cluster.dsn(LoginRole.STREAM, database)


class _NewApps:
    """A reader of the control database's log, for apps that are made while we run."""

    def __init__(self, on_new_app: Callable[[], Awaitable[None]]) -> None:
        self._on_new_app = on_new_app

    async def deliver(self, commit: Commit) -> None:
        if any(isinstance(change, Insert) for change in commit.changes_of(APPS)):
            await self._on_new_app()

    def position(self) -> LSN | None:
        return None  # apps are listed anew at each start
