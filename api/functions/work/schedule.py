"""When a cron trigger is due: five fields, in a time zone, or `@every` so long; without IO.

Where clocks are put forward a time that is left out is due right after; put back, one that is there
twice is due once, if its hour is named (as in Debian's cron).
https://man7.org/linux/man-pages/man5/crontab.5.html
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice, takewhile
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from msgspec import Struct

from butterbase.api.functions.errors import InvalidTriggerError

COUNTED_COUNT_MAX: Final = 1000
"""Of times that are not even told."""
EVERY_S_MAX: Final = 366 * 24 * 3600

_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = re.compile(r"@every\s+(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?")
_UNITS_S: Final = (24 * 3600, 3600, 60, 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SPAN: Final = timedelta(hours=1)


class Schedule(Protocol):
    def after(self, at: datetime) -> datetime | None:
        """The first time that is due later than `at`, in UTC; None: never again."""
        ...

    def backwards(self, at: datetime) -> Iterator[datetime]:
        """Times that were due at `at` and before, the latest first, as far back as 1970."""
        ...


class Every(Struct, frozen=True):
    """Multiples of the period since 1970, so that every process finds the same."""

    period_s: int

    def after(self, at: datetime) -> datetime | None:
        return self._at(self._passed(at) + 1)

    def backwards(self, at: datetime) -> Iterator[datetime]:
        return map(self._at, count(self._passed(at), -1))

    def _passed(self, at: datetime) -> int:
        return int((at - _EPOCH).total_seconds()) // self.period_s

    def _at(self, number: int) -> datetime:
        return _EPOCH + timedelta(seconds=number * self.period_s)


class Fields(Struct, frozen=True):
    expression: str
    zone: ZoneInfo

    def after(self, at: datetime) -> datetime | None:
        found = next(CronSim(self.expression, at.astimezone(self.zone)), None)
        return None if found is None else found.astimezone(UTC)

    def backwards(self, at: datetime) -> Iterator[datetime]:
        # Forwards, in spans that grow: CronSim's own search backwards mistakes the hour that is
        # there twice.
        end, span = at, _FIRST_SPAN
        while end > _EPOCH:
            start = max(end - span, _EPOCH)
            yield from reversed(self._between(start, end))
            end, span = start, 2 * span

    def _between(self, start: datetime, end: datetime) -> list[datetime]:
        forwards = CronSim(self.expression, start.astimezone(self.zone))
        return list(takewhile(lambda at: at <= end, (at.astimezone(UTC) for at in forwards)))


def parse_schedule(text: str, time_zone: str = "UTC") -> Schedule:
    """Raises InvalidTriggerError."""
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTriggerError(
            f"{time_zone!r} is no time zone", hint="such as UTC or Europe/Berlin"
        ) from None
    expression = text.strip()
    if expression.startswith("@every"):
        return _every(expression)
    expression = _NICKNAMES.get(expression, expression)
    if len(expression.split()) != 5:
        raise _invalid(text, "a schedule has five fields: minute, hour, day, month, weekday")
    try:
        CronSim(expression, _EPOCH)
    except CronSimError as error:
        raise _invalid(text, str(error)) from None
    schedule = Fields(expression, zone)
    if schedule.after(datetime.now(UTC)) is None:
        raise _invalid(text, "there is no such day")
    return schedule


def last_due(
    schedule: Schedule, after: datetime, until: datetime, *, count_max: int
) -> tuple[list[datetime], int]:
    """The last times that were due later than `after`, up to `until`, in order; and how many more
    there were before them, as far as they are counted.
    """
    later = takewhile(lambda at: at > after, schedule.backwards(until))
    found = list(islice(later, count_max))
    left_out = sum(1 for _ in islice(later, COUNTED_COUNT_MAX))
    return found[::-1], left_out


def _every(text: str) -> Every:
    match = _EVERY.fullmatch(text)
    parts = [int(part) if part else 0 for part in match.groups()] if match else []
    period_s = sum(part * unit for part, unit in zip(parts, _UNITS_S, strict=False))
    if not 1 <= period_s <= EVERY_S_MAX:
        raise _invalid(text, "such as @every 30s, @every 1h30m; a second at least, a year at most")
    return Every(period_s)


def _invalid(text: str, reason: str) -> InvalidTriggerError:
    return InvalidTriggerError(f"{text[:100]!r} is no schedule: {reason}")
