"""How targets have done lately, in this worker: latency, cooldowns, circuits; time is an argument.

A circuit opens when a target keeps failing, or says itself that it is not to be asked for a while.
Targets with an open circuit are called after all others. When the cooldown is over one call is let
through to probe; its outcome closes the circuit, or opens it for twice as long.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "half_open"]

FAILURE_COUNT_MAX = 3
"""In a row: then the circuit opens."""

COOLDOWN_S = 5.0
COOLDOWN_S_MAX = 300.0
PROBE_S_MAX = 60.0
"""A probe that has not ended by then is taken for lost, and the next call probes."""

LATENCY_KEPT_S = 600.0
"""A latency that was measured before that is forgotten, so that the target is tried again."""

TARGET_COUNT_MAX = 10_000

_ALPHA = 0.3
"""Weight of the latest latency in the average."""


class _Target:
    __slots__ = (
        "cooldown_s",
        "failure_count",
        "latencies",
        "open_until_s",
        "probe_began_s",
    )

    def __init__(self) -> None:
        self.failure_count = 0
        self.cooldown_s = 0.0
        """The one before; 0 while the circuit is closed."""
        self.open_until_s = 0.0
        self.probe_began_s: float | None = None
        self.latencies: dict[bool, tuple[float, float]] = {}
        """By whether it is a stream: the average in seconds, and when it was last measured."""


class Health:
    """Of all targets that were called; the ones last called are remembered."""

    def __init__(self) -> None:
        self._targets: OrderedDict[Hashable, _Target] = OrderedDict()

    def state(self, key: Hashable, now_s: float) -> State:
        target = self._targets.get(key)
        if target is None or not target.cooldown_s:
            return "closed"
        if now_s < target.open_until_s:
            return "open"
        probed_at = target.probe_began_s
        return "half_open" if probed_at is None or now_s - probed_at > PROBE_S_MAX else "open"

    def open_until_s(self, key: Hashable) -> float:
        target = self._targets.get(key)
        return 0.0 if target is None else target.open_until_s

    def latency_s(self, key: Hashable, now_s: float, *, is_streamed: bool) -> float | None:
        """Of a stream to its first event, else of the whole answer; None where it is not known."""
        target = self._targets.get(key)
        found = None if target is None else target.latencies.get(is_streamed)
        if found is None or now_s - found[1] > LATENCY_KEPT_S:
            return None
        return found[0]

    def began(self, key: Hashable, now_s: float) -> None:
        """A call is sent; with the circuit half open it is the probe."""
        target = self._targets.get(key)
        if target is not None and self.state(key, now_s) == "half_open":
            target.probe_began_s = now_s

    def succeeded(
        self, key: Hashable, now_s: float, *, latency_s: float, is_streamed: bool
    ) -> None:
        target = self._at(key)
        target.failure_count = 0
        target.cooldown_s = target.open_until_s = 0.0
        target.probe_began_s = None
        before = self.latency_s(key, now_s, is_streamed=is_streamed)
        average = latency_s if before is None else before + _ALPHA * (latency_s - before)
        target.latencies[is_streamed] = (average, now_s)

    def failed(self, key: Hashable, now_s: float, *, cooldown_s: float | None = None) -> None:
        """`cooldown_s` is how long the target itself wants to be left alone."""
        target = self._at(key)
        target.failure_count += 1
        was_probe = target.probe_began_s is not None
        target.probe_began_s = None
        if cooldown_s is not None:
            self._open(target, now_s, cooldown_s)
        elif was_probe:
            self._open(target, now_s, target.cooldown_s * 2)
        elif target.failure_count >= FAILURE_COUNT_MAX and now_s >= target.open_until_s:
            self._open(target, now_s, max(COOLDOWN_S, target.cooldown_s))

    def ended(self, key: Hashable) -> None:
        """A call has ended that tells nothing of the target: its client left, for example."""
        target = self._targets.get(key)
        if target is not None:
            target.probe_began_s = None

    def _open(self, target: _Target, now_s: float, cooldown_s: float) -> None:
        target.cooldown_s = min(max(cooldown_s, 0.001), COOLDOWN_S_MAX)
        target.open_until_s = max(target.open_until_s, now_s + target.cooldown_s)

    def _at(self, key: Hashable) -> _Target:
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target()
            if len(self._targets) > TARGET_COUNT_MAX:
                self._targets.popitem(last=False)
        else:
            self._targets.move_to_end(key)
        return target
