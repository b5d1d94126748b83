"""What triggers have invoked: rows of one app, claimed, run, and ended or tried again.

A row is leased while it is worked on. A worker that is killed leaves it running, and when its lease
is over another one claims it again: so everything is delivered at least once.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw, Struct

from butterbase.api.functions.errors import FunctionNotFoundError
from butterbase.api.functions.recorder import outcome_fields
from butterbase.api.functions.runtime.errors import FunctionCrashedError, FunctionsBusyError
from butterbase.api.functions.runtime.model import (
    CallContext,
    CallRequest,
    Completed,
    FunctionVersion,
)
from butterbase.api.functions.tokens import FunctionTokens
from butterbase.api.functions.versions import NOT_FLUSHED, QUERIES, Versions
from butterbase.api.functions.work.backoff import BUSY_S, delay_s
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

LEASE_S: Final = 15.0
RENEW_S: Final = 5.0
POLL_S: Final = 1.0
"""How often to look where nobody said that there is something: what another machine's processes
have queued."""
QUIET_POLL_S: Final = 15.0
"""The same in an app without triggers."""
RETRY_S: Final = 1.0
REFUSED_COUNT_MAX: Final = 5
"""So often an end that Postgres refuses is written again: what it is short of may come back."""
LOST_COUNT_MAX: Final = 5
"""So often what a killed worker has left is claimed beyond its attempts: it may be what kills."""


class Invoker(Protocol):
    """What the runtime does for a worker."""

    async def invoke(
        self, version: FunctionVersion, request: CallRequest, body: bytes = b""
    ) -> Completed: ...


class Job(Struct, frozen=True):
    """A row that is claimed."""

    id: str
    seq: int
    kind: str
    function: str
    attempts: int
    """This one counts."""
    attempts_max: int
    payload: Raw
    trigger: str | None = None
    queue: str | None = None
    position: str | None = None
    tick: str | None = None


_JOBS: Final = msgspec.json.Decoder(list[Job])


class Worker:
    """Of one app."""

    def __init__(
        self,
        app_id: str,
        executor: Executor,
        versions: Versions,
        tokens: FunctionTokens,
        invoker: Invoker,
        *,
        job_count_max: int,
        url: str,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`url` is the origin that functions see their requests at."""
        self._app_id = app_id
        self._executor = executor
        self._versions = versions
        self._tokens = tokens
        self._invoker = invoker
        self._job_count_max = job_count_max
        self._url = url
        self._chance = chance
        self._id = str(uuid.uuid4())
        self._jobs: dict[asyncio.Task[None], str] = {}
        """With the ids of their rows."""
        self._has_more = asyncio.Event()

    def wake(self) -> None:
        """There may be something to do."""
        self._has_more.set()

    async def run(self) -> None:
        """Until cancelled; what is under way then is left to others."""
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                pause_s = await self._step()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._has_more.wait()
                except TimeoutError:
                    pass
                self._has_more.clear()
        finally:
            tasks = [renewing, *self._jobs]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._release()

    async def _step(self) -> float:
        """Claim what there is room for; how long to wait then for a word that there is more."""
        room = self._job_count_max - len(self._jobs)
        if room <= 0:
            return POLL_S  # an end of one of them is the word
        try:
            _, claimed, due = await self._executor.run(
                NOT_FLUSHED,
                Statement.of(QUERIES["claim"], self._id, room, LEASE_S),
                Statement(QUERIES["next_due"]),
            )
        except ButterbaseError as error:
            logger.warning("app %s: triggers wait: %s", self._app_id, error)
            return RETRY_S
        jobs = _JOBS.decode(claimed.value() or b"[]")
        for job in jobs:
            task = asyncio.create_task(self._perform(job))
            self._jobs[task] = job.id
            task.add_done_callback(self._ended)
        if len(jobs) == room:
            return POLL_S
        due_s, has_triggers = due.rows()[0]
        longest_s = POLL_S if has_triggers == b"t" or due_s is not None else QUIET_POLL_S
        return longest_s if due_s is None else min(longest_s, max(0.0, float(due_s)))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._jobs[task]
        # There is room again, and the next with its key may have waited for this one.
        self._has_more.set()

    async def _perform(self, job: Job) -> None:
        if job.attempts > job.attempts_max + LOST_COUNT_MAX:
            message = f"{LOST_COUNT_MAX} workers were lost with it, beyond its attempts"
            lost = {"error_code": FunctionCrashedError.code, "error_message": message}
            await self._fail(job, lost)
            return
        try:
            completed = await self._invoke(job)
        except FunctionNotFoundError as error:
            await self._fail(job, {"error_code": error.code, "error_message": error.message})
            return
        except ButterbaseError as error:  # the database is away: the lease ends, or it comes back
            logger.warning("app %s: %s of %s: %s", self._app_id, job.kind, job.function, error)
            await self._fail(
                job, {"error_code": error.code, "error_message": error.message}, is_counted=False
            )
            return
        except Exception as error:
            logger.exception("app %s: %s of %s failed", self._app_id, job.kind, job.function)
            await self._fail(
                job, {"error_code": "internal_error", "error_message": type(error).__name__}
            )
            return
        outcome = completed.outcome
        fields = outcome_fields(outcome)
        if outcome.failure is None and 200 <= completed.status < 300:
            await self._write("succeed", job, fields)
            return
        fields["error_code"] = fields["error_code"] or "function_answered"
        fields["error_message"] = (
            fields["error_message"] or f"the function answered {completed.status}"
        )
        is_counted = fields["error_code"] != FunctionsBusyError.code
        await self._fail(job, fields, is_counted=is_counted)

    async def _invoke(self, job: Job) -> Completed:
        version = await self._versions.get(job.function)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(job.payload)),
            "x-butterbase-trigger": job.kind,
            "x-butterbase-invocation": job.id,
            "x-butterbase-attempt": str(job.attempts),
        }
        context = CallContext(
            invocation_id=job.id,
            request_id=job.id,
            trigger=job.kind,
            service_token=self._tokens.get(job.function, service=version.service),
            attempt=job.attempts,
        )
        url = f"{self._url}/{job.function}"
        request = CallRequest("POST", url, tuple(headers.items()), context)
        return await self._invoker.invoke(version, request, bytes(job.payload))

    async def _fail(self, job: Job, fields: dict[str, Any], *, is_counted: bool = True) -> None:
        pause_s: float | None
        if not is_counted:
            pause_s = BUSY_S * (1 + self._chance())
        elif job.attempts >= job.attempts_max:
            pause_s = None
        else:
            pause_s = delay_s(job.attempts, self._chance())
        await self._write("fail", job, fields, pause_s, is_counted)

    async def _write(
        self, query: str, job: Job, fields: dict[str, Any], *more: float | bool | None
    ) -> None:
        """For as long as the database is away, the lease being renewed meanwhile. What Postgres
        refuses time and again is left to its lease, and so runs again."""
        data = msgspec.json.encode(fields)
        statement = Statement.of(QUERIES[query], self._id, job.id, data, *more)
        refused_count = 0
        while refused_count < REFUSED_COUNT_MAX:
            try:
                await self._executor.run(statement)
                return
            except ButterbaseError as error:
                refused_count += not isinstance(error, DatabaseUnavailableError)
                logger.warning("app %s: the end of an invocation waits: %s", self._app_id, error)
                await asyncio.sleep(RETRY_S)
        logger.error("app %s: the end of %s is not written", self._app_id, job.id)

    async def _renew(self) -> None:
        """Of the rows that are worked on. One of which we never heard that it was claimed, as the
        connection was lost meanwhile, is left to its lease."""
        while True:
            await asyncio.sleep(RENEW_S)
            if ids := ",".join(self._jobs.values()):
                renew = Statement.of(QUERIES["renew"], self._id, LEASE_S, f"{{{ids}}}")
                try:
                    await self._executor.run(NOT_FLUSHED, renew)
                except ButterbaseError as error:
                    logger.warning("app %s: leases are not renewed: %s", self._app_id, error)

    async def _release(self) -> None:
        try:
            await self._executor.run(Statement.of(QUERIES["release"], self._id))
        except ButterbaseError:
            logger.info("app %s: what is under way is left to its lease", self._app_id)
