"""What comes of the times that a cron trigger was due. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from butterbase.api.functions.model import CatchUp

ON_TIME: Final = timedelta(seconds=60)
"""A time that is so long ago was missed."""
TOLD_COUNT_MAX: Final = 100
"""Times of a trigger that are worked on, or recorded, at once; what was before them is counted."""

Status: TypeAlias = Literal["queued", "missed"]


class Tick(Struct, frozen=True):
    tick: datetime
    status: Status


def judge(due: Sequence[datetime], now: datetime, catch_up: CatchUp) -> list[Tick]:
    """`due` are times in order, none of them later than `now`.

    none: the last one is run if it is of now; last: the last one is; all: all are.
    """
    judged = []
    for tick in due:
        is_last = tick == due[-1]
        is_run = (
            catch_up == "all"
            or (catch_up == "last" and is_last)
            or (is_last and now - tick <= ON_TIME)
        )
        judged.append(Tick(tick, "queued" if is_run else "missed"))
    return judged
