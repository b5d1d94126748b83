"""One app's log, and all that follows from it.

publication, slot → consumer ─┬─ realtime → sockets
                              ├─ embeddings → marks → passages with vectors
                              ├─ triggers → invocations of functions
                              ├─ schema changes → the api's workers
                              └─ the publication itself, kept in step with the schema
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ai.documents.worker import DocumentSlots, DocumentWorker
from butterbase.ai.embedders.tokens import open_tokenizer
from butterbase.api.apps import keys_of
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.config_store import CACHED_S, AuthConfigs
from butterbase.api.auth.tokens import Tokens
from butterbase.api.functions.client import FunctionsClient
from butterbase.cli.errors import first_of
from butterbase.cli.followed_log import Beginning, FollowedLog, begin, log_at
from butterbase.cli.publication import PublicationKeeper
from butterbase.cli.runtime import functions_path
from butterbase.cli.settings import Settings
from butterbase.cli.setup import Needs, ensure_app_slot, publish_app
from butterbase.ingest.consumer import Reader
from butterbase.ingest.lsn import LSN
from butterbase.ingest.rereading import Log
from butterbase.projections.embedder import Embedders
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.indexes.indexer import Indexer
from butterbase.projections.projection import Projection
from butterbase.projections.schema_announcer import SchemaAnnouncer
from butterbase.projections.status import LogStatus, RealtimeStatus
from butterbase.projections.triggers import Triggers
from butterbase.realtime.changes.hub import Hub
from butterbase.realtime.rooms.directory import Rooms
from butterbase.realtime.rooms.partitions import Partitions
from butterbase.realtime.sockets.connection import AppRealtime
from butterbase.realtime.window.floors import SlotFloors
from butterbase.sql.apps import App
from butterbase.sql.claims import Claims
from butterbase.sql.cluster import Cluster, LoginRole, app_authenticator, app_service
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor

POLICY_TIMEOUT_MS = 2_000
"""A policy that takes longer to judge a batch of changes shows none of them."""


class FollowedApp(Struct, frozen=True):
    """An app whose log is read, and for what."""

    app: App
    needs: Needs


class AppStream:
    """Of one app; `run` it once."""

    def __init__(
        self,
        followed: FollowedApp,
        cluster: Cluster,
        settings: Settings,
        embedders: Embedders,
        documents: DocumentSlots,
        *,
        more_projections: Sequence[Projection] = (),
        close_sockets: Callable[[AppRealtime], None] = lambda _: None,
    ) -> None:
        """`close_sockets` is called when the log is not read any more: who goes on listening would
        not know.
        """
        self._app = followed.app
        self._needs = followed.needs
        self._cluster = cluster
        self._settings = settings
        self._embedders = embedders
        self._documents = documents
        self._more_projections = tuple(more_projections)
        self._close_sockets = close_sockets
        self._log: FollowedLog | None = None
        self.realtime: AppRealtime | None = None
        """What its sockets need; there as soon as its log is about to be read."""
        self.is_settled = asyncio.Event()
        """Set when that is so, or will not be."""

    async def run(self) -> None:
        """Read the log until cancelled, or until something keeps it from being read."""
        database = self._app.database
        log = log_at(self._cluster.dsn(LoginRole.STREAM, database), database)
        # Before the slot is read: what is not published then is not told.
        beginning = await begin(log, self._set_up)
        executor = Executor(
            self._cluster.dsn(
                app_authenticator(self._app.id), database, statement_timeout_ms=POLICY_TIMEOUT_MS
            )
        )
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow(group, log, beginning, executor)
        except ExceptionGroup as failures:
            raise first_of(failures) from None
        finally:
            if self.realtime is not None:
                self._close_sockets(self.realtime)
                self.realtime = None
            await executor.close()

    async def _follow(
        self, group: asyncio.TaskGroup, log: Log, beginning: Beginning, executor: Executor
    ) -> None:
        control_dsn = self._cluster.dsn(LoginRole.STREAM, self._cluster.control_database)
        owner_dsn = self._cluster.owner_dsn(self._app.id, self._app.database)
        indexer = Indexer(self._embedders, open_tokenizer, dsn=log.dsn, owner_dsn=owner_dsn)
        readers: list[Reader] = [
            SchemaAnnouncer(self._app.id, control_dsn),
            PublicationKeeper(self._app.id, self._publish),
        ]
        hub = realtime = None
        if self._needs.realtime:
            hub, rooms = await self._realtime(log, executor)
            readers += [hub, rooms]
            tokens = await self._tokens(group)
            realtime = AppRealtime(partial(_verify, tokens), hub, rooms)
            group.create_task(Partitions(owner_dsn).run())
        if self._needs.collections:
            group.create_task(indexer.run())
            group.create_task(DocumentWorker(self._documents, log.dsn).run())
        has_triggered = asyncio.Event()
        if self._needs.functions:
            group.create_task(self._tell_functions(has_triggered))

        def applied() -> None:
            indexer.wake()
            has_triggered.set()

        self._log = FollowedLog(
            log,
            beginning,
            app_id=self._app.id,
            projections=self._projections(),
            readers=readers,
            retention=hub,
            on_applied=applied,
            realtime=None if hub is None else partial(_realtime_status, hub),
        )
        self.realtime = realtime
        self.is_settled.set()
        await self._log.run()

    def status(self) -> LogStatus | None:
        """None before it begins."""
        return None if self._log is None else self._log.status()

    async def _set_up(self, conn: AsyncConnection) -> LSN:
        await self._publish()
        dsn = self._cluster.dsn(LoginRole.STREAM, self._cluster.control_database)
        async with await AsyncConnection.connect(dsn, autocommit=True) as control:
            return await ensure_app_slot(control, conn, self._app.database)

    async def _publish(self) -> None:
        schemas = self._settings.stream.schemas
        await publish_app(self._cluster, self._app.database, self._needs, schemas)

    def _projections(self) -> list[Projection]:
        own: list[Projection] = [Embeddings()] if self._needs.collections else []
        if self._needs.functions:
            own.append(Triggers())
        return [*own, *self._more_projections]

    async def _tell_functions(self, has_triggered: asyncio.Event) -> None:
        """That there may be something to run, until cancelled. Who is not told looks itself."""
        client = FunctionsClient(functions_path(self._settings))
        try:
            while True:
                await has_triggered.wait()
                has_triggered.clear()
                await client.poke(self._app.id, "queued")
        finally:
            await client.close()

    async def _realtime(self, log: Log, executor: Executor) -> tuple[Hub, Rooms]:
        async def wait_log() -> None:
            assert self._log is not None
            await self._log.consumer.wait_connected()

        settings = self._settings.stream.realtime
        floors = SlotFloors(log.dsn, log.slot)
        hub = Hub(executor, wait_log=wait_log, settings=settings, floors=floors)
        rooms = Rooms(executor, wait_log=wait_log, settings=settings)
        await rooms.start()
        return hub, rooms

    async def _tokens(self, group: asyncio.TaskGroup) -> Tokens:
        """What verifies tokens, and hears of keys that are retired."""
        app, cluster = self._app, self._cluster
        tokens = Tokens(keys_of(cluster, app.id, app.created_at, self._settings.api))

        def hear(config: AuthConfig) -> None:
            tokens.key_epoch = config.key_epoch

        service = Executor(cluster.dsn(app_service(app.id), app.database), connection_count_max=1)
        configs = AuthConfigs(app.id, service, cluster.master_key, on_read=hear)
        group.create_task(_keep_reading(configs, service))
        await configs.get()
        return tokens


def _verify(tokens: Tokens, token: str) -> Claims:
    return tokens.verify(token, now_s=time.time())


async def _keep_reading(configs: AuthConfigs, service: Executor) -> None:
    """Until cancelled. While the database is away the keys stay as they are known."""
    try:
        while True:
            await asyncio.sleep(CACHED_S)
            with suppress(ButterbaseError):
                await configs.get()
    finally:
        await service.close()


def _realtime_status(hub: Hub) -> RealtimeStatus:
    return RealtimeStatus(hub.subscriber_count, hub.queued_change_count)
