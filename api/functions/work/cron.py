"""Cron triggers of one app: what is due becomes invocations.

A trigger's row says which time was told last. Who tells the next one moves it in the same
statement, so that each time is told once, whoever does so. There is one who does (leadership.py),
to spare the others the trouble.
"""

import logging
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from butterbase.api.functions.errors import InvalidTriggerError
from butterbase.api.functions.model import CronConfig
from butterbase.api.functions.versions import QUERIES
from butterbase.api.functions.work.schedule import last_due, parse_schedule
from butterbase.api.functions.work.ticks import TOLD_COUNT_MAX, judge
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)


class _Trigger(Struct, frozen=True):
    id: str
    config: CronConfig
    last_tick: str
    """As Postgres writes it, so that it is compared to the microsecond."""


_TRIGGERS: Final = msgspec.json.Decoder(list[_Trigger])


class Cron:
    def __init__(self, app_id: str, executor: Executor) -> None:
        self._app_id = app_id
        self._executor = executor

    async def advance(self, now: datetime) -> tuple[datetime | None, int]:
        """When something is due next, and how many invocations were made.

        Raises DatabaseUnavailableError.
        """
        (result,) = await self._executor.run(Statement(QUERIES["cron"]))
        upcoming: list[datetime] = []
        made_count = 0
        for trigger in _TRIGGERS.decode(result.value() or b"[]"):
            try:
                schedule = parse_schedule(trigger.config.schedule, trigger.config.time_zone)
            except InvalidTriggerError as error:  # a time zone that this machine does not know
                logger.warning("app %s: a cron trigger is not run: %s", self._app_id, error)
                continue
            last = datetime.fromisoformat(trigger.last_tick).astimezone(UTC)
            due, left_out = last_due(schedule, last, now, count_max=TOLD_COUNT_MAX)
            if due:
                made_count += await self._tell(trigger, due, left_out, now)
            following = schedule.after(max(now, last))
            if following is not None:
                upcoming.append(following)
        return min(upcoming, default=None), made_count

    async def _tell(
        self, trigger: _Trigger, due: list[datetime], left_out: int, now: datetime
    ) -> int:
        config = trigger.config
        ticks = judge(due, now, config.catch_up)
        (result,) = await self._executor.run(
            Statement.of(
                QUERIES["advance_cron"],
                trigger.id,
                trigger.last_tick,
                due[-1].isoformat(),
                left_out,
                msgspec.json.encode(ticks),
                None if config.overlap == "allow" else "cron",
                config.overlap == "skip",
            )
        )
        return int(result.value() or 0) if result.row_count else 0
