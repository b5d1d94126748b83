"""Calls that have ended, and what they log: gathered for a moment, and written many at a time.

What waits for a database that is away is bounded; beyond it the oldest is dropped, and told so. A
call that nobody recorded was made all the same: what must not be lost is in the invocations' rows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from butterbase.api.errors import UnknownAppError
from butterbase.api.functions.runtime.model import (
    CallContext,
    FunctionVersion,
    LogLine,
    Outcome,
)
from butterbase.api.functions.versions import NOT_FLUSHED, QUERIES
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

GATHER_S: Final = 0.1
RETRY_S: Final = 1.0
WRITE_COUNT_MAX: Final = 500
WAITING_COUNT_MAX: Final = 20_000
"""Of one app, of each kind."""
HTTP: Final = "http"


class _Waiting:
    def __init__(self) -> None:
        self.lines: deque[dict[str, Any]] = deque(maxlen=WAITING_COUNT_MAX)
        self.calls: deque[dict[str, Any]] = deque(maxlen=WAITING_COUNT_MAX)


class CallRecorder:
    """The runtime's Recorder, for all apps."""

    def __init__(self, executor_of: Callable[[str], Awaitable[Executor]]) -> None:
        self._executor_of = executor_of
        self._waiting: dict[str, _Waiting] = {}
        self._has_more = asyncio.Event()
        self._dropped_count = 0

    def log(self, version: FunctionVersion, context: CallContext, line: LogLine) -> None:
        lines = self._of(version.app_id).lines
        self._count_dropped(lines)
        lines.append(
            {
                "function": version.name,
                "invocation_id": context.invocation_id,
                "at": line.at,
                "level": line.level,
                "message": _clean(line.message),
            }
        )
        self._has_more.set()

    def ended(self, outcome: Outcome) -> None:
        """What a trigger has invoked has a row already, which its worker writes."""
        if outcome.trigger != HTTP:
            return
        calls = self._of(outcome.app_id).calls
        self._count_dropped(calls)
        is_good = outcome.failure is None and outcome.status < 500
        calls.append(
            {
                "id": outcome.invocation_id,
                "function": outcome.name,
                "status": "succeeded" if is_good else "failed",
                "started_at": outcome.started_at,
                **outcome_fields(outcome),
            }
        )
        self._has_more.set()

    async def run(self) -> None:
        """Write what comes, until cancelled; what waits then is written last."""
        try:
            while True:
                await self._has_more.wait()
                await asyncio.sleep(GATHER_S)
                self._has_more.clear()
                if not await self._write_all():
                    await asyncio.sleep(RETRY_S)
                    self._has_more.set()
        finally:
            await self._write_all()

    def _of(self, app_id: str) -> _Waiting:
        waiting = self._waiting.get(app_id)
        if waiting is None:
            waiting = self._waiting[app_id] = _Waiting()
        return waiting

    def _count_dropped(self, queue: "deque[dict[str, Any]]") -> None:
        if len(queue) == queue.maxlen:
            self._dropped_count += 1
            if self._dropped_count.bit_count() == 1:
                logger.warning("%d records of calls were dropped so far", self._dropped_count)

    async def _write_all(self) -> bool:
        """Whether all is written."""
        is_done = True
        for app_id, waiting in list(self._waiting.items()):
            try:
                await self._write(await self._executor_of(app_id), waiting)
            except UnknownAppError:
                self._waiting.pop(app_id, None)  # the app is gone, and its records with it
                continue
            except ButterbaseError as error:
                logger.warning("app %s: records of calls wait: %s", app_id, error)
                is_done = False
            if not (waiting.lines or waiting.calls):
                self._waiting.pop(app_id, None)
        return is_done

    async def _write(self, executor: Executor, waiting: _Waiting) -> None:
        for queue, query in ((waiting.lines, "write_logs"), (waiting.calls, "record")):
            while queue:
                batch = [queue.popleft() for _ in range(min(len(queue), WRITE_COUNT_MAX))]
                try:
                    await executor.run(
                        NOT_FLUSHED, Statement.of(QUERIES[query], msgspec.json.encode(batch))
                    )
                except (ButterbaseError, asyncio.CancelledError):
                    # Of one that is cancelled it may be kept already: a line twice is no loss.
                    queue.extendleft(reversed(batch))
                    raise


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """As they are kept of every invocation."""
    failure = outcome.failure
    return {
        "version_id": outcome.version_id,
        "request_id": _clean(outcome.request_id),
        "http_status": outcome.status,
        "duration_ms": outcome.duration_ms,
        "cpu_ms": outcome.cpu_ms,
        "memory_bytes": outcome.memory_bytes,
        "is_cold": outcome.is_cold,
        "error_code": None if failure is None else failure.code,
        "error_message": None if failure is None else _clean(failure.message),
        "error_stack": _clean(failure.stack) if failure and failure.stack else None,
    }


def _clean(text: str) -> str:
    """Postgres keeps no NUL, and no half of a surrogate pair."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
