"""`Server-Timing`: how long each stage of a request took. https://www.w3.org/TR/server-timing/"""

import time

_STAGES = ("jwt", "parse", "plan", "transaction", "response")


class Stopwatch:
    def __init__(self, admission_s: float) -> None:
        """`admission_s`: what verifying the caller took."""
        self._laps = dict.fromkeys(_STAGES, 0.0) | {"jwt": admission_s}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The stage ends here; it began where the last one ended. What is done again adds up."""
        now = time.perf_counter()
        self._laps[stage] += now - self._last
        self._last = now

    def header(self) -> tuple[bytes, bytes]:
        """Durations in milliseconds."""
        laps = (f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in self._laps.items())
        return b"server-timing", ", ".join(laps).encode()
