"""`Server-Timing`: how long each stage of a request took. https://www.w3.org/TR/server-timing/"""

import time


class Stopwatch:
    def __init__(self, admission_s: float) -> None:
        """`admission_s`: what verifying the caller took."""
        self._laps = [("jwt", admission_s)]
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The stage ends here; it began where the last one ended."""
        now = time.perf_counter()
        self._laps.append((stage, now - self._last))
        self._last = now

    def header(self) -> tuple[bytes, bytes]:
        """Durations in milliseconds."""
        laps = ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in self._laps)
        return b"server-timing", laps.encode()
