"""When what failed is tried again. Pure."""

from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0
BUSY_S: Final = 1.0
"""Where there was no process to run it, which is no failure of its own."""


def delay_s(attempt: int, chance: float) -> float:
    """Before the next attempt, after the `attempt`th failed, which counts from 1.

    Twice as long each time, of which up to a half is taken off by `chance`, from 0 to 1, so that
    what failed together does not come again together.
    """
    return min(LONGEST_S, FIRST_S * 2.0 ** min(attempt - 1, 30)) * (1 - chance / 2)
