"""Moves documents from received to parsed: takes jobs, fetches, has files read, brings the outcome.

One app's; a process has one for each app, which share its slots. What waits, waits in the database:
memory is bounded by the slots, however long the queue.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.documents import jobs
from butterbase.ai.documents.blocks import Progress, Source
from butterbase.ai.documents.errors import (
    DocumentEmptyError,
    DocumentError,
    DocumentMalformedError,
    ParserCrashedError,
    ParserError,
)
from butterbase.ai.documents.fetching import Fetcher
from butterbase.ai.documents.jobs import Job, Stage
from butterbase.ai.documents.parsing import File, Parsing
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.types import DocumentType, charset_of, type_of
from butterbase.sql.cancelling import check_cancelled
from butterbase.sql.listening import Listener

logger = logging.getLogger(__name__)

FETCH_COUNT_MAX = 8
"""They wait more than they work; a slow server holds up few others."""
CONNECTION_COUNT_MAX = 4
IDLE_S = 30.0
"""How often to look, when nothing is said to be due."""
PAUSE_S_MIN = 0.2
RETRY_S = 1.0
PROGRESS_S = 1.0
LEASE_MARGIN_S = 60.0
GIVE_BACK_S = 2.0
GIVE_BACK_PAUSE_S = 0.05


class DocumentSlots:
    """What all apps of a process share: who waits gets the next slot in turn."""

    def __init__(self, settings: DocumentSettings) -> None:
        self.settings = settings
        self.parsing = Parsing(settings)
        self.fetcher = Fetcher(
            bytes_max=settings.documents_bytes_max,
            timeout_s=settings.documents_fetch_s,
            is_private_allowed=settings.documents_private_urls,
        )
        self.free: dict[Stage, asyncio.Semaphore] = {
            "fetch": asyncio.Semaphore(FETCH_COUNT_MAX),
            "parse": asyncio.Semaphore(settings.documents_parsers),
        }


class DocumentWorker:
    """Of one app; `run` it once."""

    def __init__(self, slots: DocumentSlots, dsn: str) -> None:
        self._slots = slots
        self._dsn = dsn
        self._awake: dict[Stage, asyncio.Event] = {
            "fetch": asyncio.Event(),
            "parse": asyncio.Event(),
        }
        self._last_owner: dict[Stage, UUID | None] = {"fetch": None, "parse": None}

    def wake(self) -> None:
        for event in self._awake.values():
            event.set()

    async def run(self) -> None:
        """Work until cancelled."""
        listener = Listener(
            self._dsn, jobs.CHANNEL, hear=lambda _: self.wake(), on_listening=self.wake
        )
        async with (
            AsyncConnectionPool[AsyncConnection](
                self._dsn,
                min_size=0,
                max_size=CONNECTION_COUNT_MAX,
                kwargs={"autocommit": True},
                open=False,
            ) as pool,
            asyncio.TaskGroup() as group,
        ):
            await self._begin(pool)
            group.create_task(listener.run())
            for stage in self._awake:
                group.create_task(self._run_stage(stage, pool, group))

    async def _begin(self, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        while True:
            try:
                async with pool.connection() as conn:
                    await jobs.release_all(conn)
                return
            except psycopg.Error as error:
                check_cancelled()
                logger.warning("documents wait: %s", str(error).strip())
                await asyncio.sleep(RETRY_S)

    async def _run_stage(
        self,
        stage: Stage,
        pool: "AsyncConnectionPool[AsyncConnection]",
        group: asyncio.TaskGroup,
    ) -> None:
        free = self._slots.free[stage]
        while True:
            self._awake[stage].clear()
            await free.acquire()
            job = work = None
            try:
                async with pool.connection() as conn:
                    job = await jobs.take(
                        conn, stage, after=self._last_owner[stage], lease_s=self._lease_s(stage)
                    )
                    wait_s = 0.0 if job else await jobs.next_due_s(conn)
                if job is not None:
                    work = group.create_task(self._work(job, pool))
                    # Not by the work itself: cancelled at once, it does not even begin.
                    work.add_done_callback(lambda _: free.release())
            except psycopg.Error as error:
                logger.warning("documents wait: %s", str(error).strip())
                wait_s = RETRY_S
            finally:
                if work is None:
                    free.release()
            if job is None:
                check_cancelled()
                await self._idle(stage, wait_s)
            else:
                self._last_owner[stage] = job.owner_id

    async def _idle(self, stage: Stage, due_s: float | None) -> None:
        wait_s = IDLE_S if due_s is None else min(IDLE_S, max(PAUSE_S_MIN, due_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._awake[stage].wait()

    def _lease_s(self, stage: Stage) -> float:
        settings = self._slots.settings
        work_s = settings.documents_fetch_s if stage == "fetch" else settings.documents_parse_s
        return work_s + LEASE_MARGIN_S

    async def _work(self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        """One job to its outcome; nothing that happens to it ends the others."""
        try:
            await self._try(job, pool)
        except psycopg.Error as error:
            # Its lease runs out, or is released by who begins next.
            logger.warning("document %s waits: %s", job.document_id, str(error).strip())
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    await _give_back(job, pool)
            raise

    async def _try(self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        try:
            if job.attempts > jobs.ATTEMPT_COUNT_MAX:
                raise ParserCrashedError("whoever worked at it ended each time")
            if job.stage == "fetch":
                await self._fetch(job, pool)
            else:
                await self._parse(job, pool)
        except DocumentError as error:
            await self._fail(job, pool, error)
        except (psycopg.DataError, psycopg.IntegrityError):
            logger.exception("document %s cannot be stored", job.document_id)
            await self._fail(job, pool, DocumentMalformedError("its text cannot be stored"))
        except psycopg.Error:
            raise
        except Exception:
            logger.exception("document %s", job.document_id)
            await self._fail(job, pool, ParserError())

    async def _fail(
        self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]", error: DocumentError
    ) -> None:
        logger.info("document %s: %s", job.document_id, error.code)
        async with pool.connection() as conn:
            await jobs.fail(conn, job, error)

    async def _fetch(self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        assert job.source_url is not None
        fetched = await self._slots.fetcher.fetch(job.source_url)
        type_of(fetched.content_type, fetched.file_name, head=fetched.data[:8])
        async with pool.connection() as conn:
            await jobs.finish_fetch(conn, job, fetched)

    async def _parse(self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        async with pool.connection() as conn:
            data = await jobs.read_bytes(conn, job)
        if not data:
            raise DocumentEmptyError("the file is empty")
        type_ = type_of(job.media_type, job.file_name, head=data[:8])
        is_page = job.source_url is not None and type_ is DocumentType.HTML
        source = Source(job.file_name, charset_of(job.media_type), is_page)
        async with _reporting(job, pool) as report:
            extracted = await self._slots.parsing.parse(
                File(type_, data, source), on_progress=report
            )
        is_kept = job.source_url is None and self._slots.settings.documents_keep_files
        async with pool.connection() as conn:
            await jobs.finish_parse(conn, job, extracted, is_kept=is_kept)


class _Reporter:
    """Writes how far it is, now and then: a page takes a millisecond."""

    def __init__(self, job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
        self._job = job
        self._pool = pool
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._latest = progress

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            latest, self._latest = self._latest, None
            if latest is None:
                continue
            with contextlib.suppress(psycopg.Error):
                async with self._pool.connection() as conn:
                    await jobs.report_progress(
                        conn, self._job, done=latest.pages_done, total=latest.page_count
                    )


async def _give_back(job: Job, pool: "AsyncConnectionPool[AsyncConnection]") -> None:
    """Until it is done: where all work is cancelled at once, the cancellation of a statement may
    come late, and hit this one on the same connection.
    """
    while True:
        try:
            async with pool.connection() as conn:
                await jobs.give_back(conn, job)
            return
        except psycopg.Error:
            await asyncio.sleep(GIVE_BACK_PAUSE_S)


@contextlib.asynccontextmanager
async def _reporting(
    job: Job, pool: "AsyncConnectionPool[AsyncConnection]"
) -> AsyncIterator[_Reporter]:
    reporter = _Reporter(job, pool)
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
