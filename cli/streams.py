"""All logs of an installation, by one process of several.

The control database's log tells of apps and of events. Whoever reads it leads: that process reads
the logs of all apps and serves the sockets. Others stand by, and one takes over when it goes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import AsyncConnection

from butterbase.ai.documents.worker import DocumentSlots
from butterbase.ai.embedders.apps import AppEmbedders
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.cli.app_stream import AppStream, FollowedApp
from butterbase.cli.errors import SteppedDownError, first_of
from butterbase.cli.followed_log import FollowedLog, begin, log_at
from butterbase.cli.process_status import publisher
from butterbase.cli.settings import Settings
from butterbase.cli.setup import Needs, drop_app_slot
from butterbase.cli.stream_gateway import StreamGateway
from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.projections.projection import Projection
from butterbase.projections.status import LogStatus, SocketStatus
from butterbase.projections.sweeper import Sweeper
from butterbase.projections.usage import UsageProjection
from butterbase.realtime.sockets.connection import AppRealtime
from butterbase.sql.apps import App
from butterbase.sql.cancelling import check_cancelled
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

APP_RETRY_S: Final = 10.0
RETRY_S: Final = 1.0

SETTLED_WITHIN_S: Final = 5.0
"""An app that takes longer to begin does not keep the others' sockets waiting."""

STEP_DOWN_S: Final = 6.0
"""How long somebody else must have been reading our log before we believe it. The server may take
a connection of ours that broke for one that is alive until its keepalives say otherwise, which
takes four seconds (ingest/session.py)."""

USAGE_PAUSE_S: Final = 0.05
"""From one transaction of the usage to the next. Each costs the same for one event as for fifty;
what a call has reserved stays so for that much longer, and an event that comes alone waits for
nothing."""

APPS: Final = ("butterbase", "apps")

_APPS: Final = """
select id, database, created_at, realtime, collections, functions
from butterbase.apps order by id
"""
_SLOTS: Final = "select database from butterbase.app_slots"

MoreProjections = Callable[[App], Sequence[Projection]]


class Streams:
    """The readers of all logs. `run` it once."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        embedder: LazyEmbedder,
        *,
        more_projections: MoreProjections = lambda _: (),
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._embedder = embedder
        self._gateway = StreamGateway(cluster, settings)
        self._documents = DocumentSlots(settings.documents)
        self._more_projections = more_projections
        self._apps_changed = asyncio.Event()
        self._are_apps_known = asyncio.Event()
        self._streams: dict[str, AppStream] = {}
        self._tasks: dict[str, tuple[FollowedApp, asyncio.Task[None]]] = {}
        self._control: FollowedLog | None = None
        self.close_sockets: Callable[[AppRealtime], None] = lambda _: None
        """To be set by whoever serves sockets: closes those of an app whose log is not read."""
        self.count_sockets: Callable[[], SocketStatus] = SocketStatus
        self.is_leading = asyncio.Event()
        """Set once this process is the one that reads."""

    def realtime(self, app_id: str) -> AppRealtime | None:
        """What the app's sockets need; None where there is none, or its log is not read."""
        stream = self._streams.get(app_id)
        return None if stream is None else stream.realtime

    async def wait_served(self) -> None:
        """Wait until this process leads and can serve the sockets of all apps but those that have
        trouble.
        """
        await self.is_leading.wait()
        await self._are_apps_known.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN_S):
                for stream in list(self._streams.values()):
                    await stream.is_settled.wait()

    def status(self) -> list[LogStatus]:
        if self._control is None or not self.is_leading.is_set():
            return []
        of_apps = [stream.status() for stream in self._streams.values()]
        return [self._control.status(), *(status for status in of_apps if status is not None)]

    async def run(self) -> None:
        """Read all logs until cancelled. Raises SlotError, SteppedDownError, and what else ends the
        control database's consumer.
        """
        database = self._cluster.control_database
        log = log_at(self._control_dsn, database)
        control = self._control = FollowedLog(
            log,
            await begin(log),
            projections=[UsageProjection()],
            readers=[_AppsWatch(self._apps_changed)],
            pause_s=USAGE_PAUSE_S,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell())
                group.create_task(control.run())
                group.create_task(self._lead(control))
        except ExceptionGroup as failures:
            raise first_of(failures) from None
        finally:
            await self._stop([task for _, task in self._tasks.values()])
            self._tasks.clear()  # one that was connecting has a socket in its traceback
            await self._gateway.close()

    async def _tell(self) -> None:
        await publisher(
            self._control_dsn,
            is_leading=self.is_leading.is_set,
            logs=self.status,
            sockets=lambda: self.count_sockets(),
        ).run()

    # Leading

    async def _lead(self, control: FollowedLog) -> None:
        await control.consumer.wait_connected()
        self.is_leading.set()
        logger.info("this process reads the logs")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._step_down(control))
            group.create_task(Sweeper(self._control_dsn).run())
            group.create_task(self._follow_apps())

    async def _step_down(self, control: FollowedLog) -> None:
        """Raises SteppedDownError when another process has taken over."""
        loop = asyncio.get_running_loop()
        standby_since_s: float | None = None
        while True:
            await asyncio.sleep(RETRY_S)
            if not control.consumer.is_standby:
                standby_since_s = None
            elif standby_since_s is None:
                standby_since_s = loop.time()
            elif loop.time() - standby_since_s > STEP_DOWN_S:
                raise SteppedDownError

    # The apps

    async def _follow_apps(self) -> None:
        self._apps_changed.set()
        while True:
            await self._apps_changed.wait()
            self._apps_changed.clear()
            try:
                await self._reconcile()
            except (psycopg.Error, ButterbaseError) as error:
                logger.warning("apps: %s; trying again", error)
                self._apps_changed.set()
                await asyncio.sleep(RETRY_S)

    async def _reconcile(self) -> None:
        """Read the logs of those apps that need it, and keep no other slot."""
        async with await AsyncConnection.connect(self._control_dsn, autocommit=True) as conn:
            wanted = {followed.app.id: followed for followed in await _read_apps(conn)}
            ended = [
                (id_, task)
                for id_, (followed, task) in self._tasks.items()
                if wanted.get(id_) != followed
            ]
            await self._stop([task for _, task in ended])
            for id_, _ in ended:
                del self._tasks[id_]
                self._streams.pop(id_, None)
            for id_, followed in wanted.items():
                if id_ not in self._tasks:
                    stream = self._open(followed)
                    task = asyncio.create_task(self._keep_app(followed, stream))
                    self._tasks[id_] = followed, task
            self._are_apps_known.set()
            databases = {followed.app.database for followed in wanted.values()}
            for (database,) in await (await conn.execute(_SLOTS)).fetchall():
                if database not in databases:
                    logger.info("%s: nobody needs its log any more", database)
                    await drop_app_slot(conn, database)

    def _open(self, followed: FollowedApp) -> AppStream:
        app = followed.app
        stream = self._streams[app.id] = AppStream(
            followed,
            self._cluster,
            self._settings,
            AppEmbedders(self._embedder, self._gateway.get, app.id),
            self._documents,
            more_projections=self._more_projections(app),
            close_sockets=self.close_sockets,
        )
        return stream

    async def _keep_app(self, followed: FollowedApp, stream: AppStream) -> None:
        """Read the app's log; what ends that is this app's trouble and no other's."""
        app = followed.app
        while True:
            try:
                await stream.run()
            except ButterbaseError as error:
                logger.error("app %s: its log is not read: %s (%s)", app.id, error, error.hint)
            except Exception:
                logger.exception("app %s: its log is not read", app.id)
            check_cancelled()
            stream.is_settled.set()
            await asyncio.sleep(APP_RETRY_S)
            stream = self._open(followed)

    async def _stop(self, tasks: Sequence["asyncio.Task[None]"]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _control_dsn(self) -> str:
        return self._cluster.dsn(LoginRole.STREAM, self._cluster.control_database)


async def _read_apps(conn: AsyncConnection) -> list[FollowedApp]:
    rows = await (await conn.execute(_APPS)).fetchall()
    found = [
        FollowedApp(App(id_, database, created_at), Needs(*needs))
        for id_, database, created_at, *needs in rows
    ]
    return [followed for followed in found if followed.needs]


class _AppsWatch:
    """A reader of the control database's log, for apps that come, change and go."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed

    async def deliver(self, commit: Commit) -> None:
        if APPS in commit.tables:
            self._changed.set()

    def position(self) -> LSN | None:
        return None  # apps are read anew at each start
