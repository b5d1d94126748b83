"""How much one process may have the host do: what it says costs the host time, which all share.

Pure: time is an argument.
"""

from typing import Final

from butterbase.api.functions.runtime.frames import Frame, FrameType

WORK_MAX: Final = 2000
"""Units in `WINDOW_S`; for more it has to wait."""
WINDOW_S: Final = 0.1
_BODY_BYTES: Final = 64 * 1024
_JSON_BYTES: Final = 512
"""A read is a unit, a frame is, and so many bytes of it: bodies are passed on, all else is read."""


class WorkBudget:
    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._work = 0

    def read(self) -> None:
        """It was read from, whatever there was."""
        self._work += 1

    def spend(self, frame: Frame) -> None:
        unit_bytes = _BODY_BYTES if frame.type is FrameType.DATA else _JSON_BYTES
        self._work += 1 + len(frame.payload) // unit_bytes

    def pause_s(self, now_s: float) -> float:
        """How long nothing more is to be read from it; 0 when nothing keeps it."""
        if self._work <= WORK_MAX:
            return 0.0
        worth_s = self._work / WORK_MAX * WINDOW_S
        pause_s = max(0.0, worth_s - (now_s - self._since_s))
        self._work, self._since_s = 0, now_s + pause_s
        return pause_s
