"""All that the process that runs functions does for one app."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.tokens import FunctionTokens
from butterbase.api.functions.versions import QUERIES, Versions
from butterbase.api.functions.work.cron import Cron
from butterbase.api.functions.work.leadership import Leadership
from butterbase.api.functions.work.worker import Invoker, Worker
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

REFRESH_S: Final = 3.0
"""How often to look for what another machine's api has deployed."""
CRON_POLL_S: Final = 15.0
SWEEP_S: Final = 3600.0
SWEEP_COUNT: Final = 5000
"""Rows that one statement deletes."""
RETRY_S: Final = 1.0


class FunctionApp:
    def __init__(
        self,
        app_id: str,
        executor: Executor,
        versions: Versions,
        tokens: FunctionTokens,
        settings: FunctionsSettings,
        leadership: Leadership,
        *,
        url: str,
    ) -> None:
        self.id = app_id
        self.executor = executor
        self.versions = versions
        self._tokens = tokens
        self._settings = settings
        self._leadership = leadership
        self._url = url
        self._cron = Cron(app_id, executor)
        self._worker: Worker | None = None
        self._has_changed = asyncio.Event()

    def deployed(self, name: str) -> None:
        self.versions.changed(name)
        self._has_changed.set()
        self.queued()

    def queued(self) -> None:
        if self._worker is not None:
            self._worker.wake()

    async def run(self, invoker: Invoker) -> None:
        """Until cancelled."""
        worker = self._worker = Worker(
            self.id,
            self.executor,
            self.versions,
            self._tokens,
            invoker,
            job_count_max=self._settings.functions_jobs,
            url=self._url,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run())
                group.create_task(self._refresh())
                group.create_task(self._tick(worker))
                group.create_task(self._sweep())
        finally:
            self._worker = None

    async def close(self) -> None:
        await self.versions.close()
        await self.executor.close()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.versions.refresh()
            except ButterbaseError as error:
                logger.warning("app %s: functions are not looked at: %s", self.id, error)

    async def _tick(self, worker: Worker) -> None:
        """Of cron."""
        while True:
            await self._leadership.is_held.wait()
            pause_s = CRON_POLL_S
            self._has_changed.clear()
            try:
                upcoming, made_count = await self._cron.advance(datetime.now(UTC))
                if made_count:
                    worker.wake()
                if upcoming is not None:
                    until_s = (upcoming - datetime.now(UTC)).total_seconds()
                    pause_s = min(CRON_POLL_S, max(0.0, until_s))
            except ButterbaseError as error:
                logger.warning("app %s: cron waits: %s", self.id, error)
                pause_s = RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._has_changed.wait()
            except TimeoutError:
                pass

    async def _sweep(self) -> None:
        """Of records that are old."""
        while True:
            await self._leadership.is_held.wait()
            try:
                await self._sweep_once()
            except ButterbaseError as error:
                logger.warning("app %s: old records stay: %s", self.id, error)
            await asyncio.sleep(SWEEP_S)

    async def _sweep_once(self) -> None:
        days, dead_days = self._settings.functions_records_days, self._settings.functions_dead_days
        await self._until_none(Statement.of(QUERIES["sweep"], days, dead_days, SWEEP_COUNT))
        await self._until_none(Statement.of(QUERIES["sweep_logs"], days, SWEEP_COUNT))
        await self.executor.run(
            Statement(QUERIES["sweep_claims"]), Statement(QUERIES["sweep_applied"])
        )

    async def _until_none(self, statement: Statement) -> None:
        while True:
            (result,) = await self.executor.run(statement)
            if result.row_count < SWEEP_COUNT:
                return
