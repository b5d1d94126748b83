"""What is measured of gateways, and the figures that follow. Pure."""

import statistics
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from .calls import CallLoad
from .gateways import CACHED_MODEL, Target
from .provider import CHUNK_COUNT, MODEL

Kind: TypeAlias = Literal["whole", "stream", "paced", "cached"]

NAMES: Final = ("direct", "ours", "litellm", "portkey")
STATED: Final = 16
"""The connections at which ratios of calls a second are stated."""


class Cell(Struct, frozen=True):
    """One kind of call, from so many connections at the same time."""

    kind: Kind
    connection_count: int

    @property
    def name(self) -> str:
        return f"{self.kind}_c{self.connection_count}"

    @property
    def is_streamed(self) -> bool:
        return self.kind in {"stream", "paced"}

    @property
    def is_ours_alone(self) -> bool:
        return self.kind == "cached"

    def request(self, target: Target) -> bytes:
        return target.request(
            is_streamed=self.is_streamed,
            is_paced=self.kind == "paced",
            model=CACHED_MODEL if self.kind == "cached" else MODEL,
        )


CELLS: Final = (
    Cell("whole", 1),
    Cell("whole", STATED),
    Cell("stream", 1),
    Cell("stream", STATED),
    Cell("paced", 1),
    Cell("cached", 1),
    Cell("cached", STATED),
)
WARM_UP_CELLS: Final = (Cell("whole", STATED), Cell("stream", STATED))


class _Round:
    """One round's loads, by the names of target and cell."""

    def __init__(self) -> None:
        self._loads: dict[tuple[str, str], CallLoad] = {}

    def add(self, target: str, cell: str, load: CallLoad) -> None:
        self._loads[target, cell] = load

    def has(self, target: str) -> bool:
        return any(name == target for name, _ in self._loads)

    def load(self, target: str, kind: Kind, connection_count: int = 1) -> CallLoad:
        return self._loads[target, Cell(kind, connection_count).name]

    def calls_ratio(self, other: str) -> float:
        return self.load("ours", "whole", STATED).rps / self.load(other, "whole", STATED).rps

    def streams_ratio(self, other: str) -> float:
        return self.load("ours", "stream", STATED).rps / self.load(other, "stream", STATED).rps

    def added_p50_ratio(self, other: str) -> float:
        return self.added_p50_ms("ours") / self.added_p50_ms(other)

    def cached_p50_ms(self, target: str) -> float:
        return self.load(target, "cached").p50_ms

    def added_p50_ms(self, target: str) -> float:
        return self.load(target, "whole").p50_ms - self.load("direct", "whole").p50_ms

    def added_p99_ms(self, target: str) -> float:
        return self.load(target, "whole").p99_ms - self.load("direct", "whole").p99_ms

    def added_ms_per_chunk(self, target: str) -> float:
        added_ms = self.load(target, "stream").p50_ms - self.load("direct", "stream").p50_ms
        return added_ms / CHUNK_COUNT

    def added_delay_ms(self, target: str) -> float:
        delays = [self.load(name, "paced").delay_p50_ms or 0 for name in (target, "direct")]
        return delays[0] - delays[1]


class Figures:
    """What the rounds came to."""

    def __init__(self) -> None:
        self._rounds: list[_Round] = []
        self._loads: dict[str, list[tuple[CallLoad, float]]] = {}

    def begin_round(self) -> None:
        self._rounds.append(_Round())

    def add(self, cell: Cell, target: Target, load: CallLoad, cpu_ms: float) -> None:
        self._rounds[-1].add(target.name, cell.name, load)
        self._loads.setdefault(f"{target.name}_{cell.name}", []).append((load, cpu_ms))

    def metrics(self) -> dict[str, float]:
        """Medians over the rounds; a ratio or difference is taken within its round first."""
        found: dict[str, float] = {}
        peers = [name for name in NAMES[2:] if self._rounds[0].has(name)]
        for name in peers:
            found[f"rps_vs_{name}"] = self._median(_Round.calls_ratio, name)
            found[f"streams_vs_{name}"] = self._median(_Round.streams_ratio, name)
            found[f"added_p50_vs_{name}"] = self._median(_Round.added_p50_ratio, name)
        found["cache_hit_p50_ms"] = self._median(_Round.cached_p50_ms, "ours")
        for name in ("ours", *peers):
            own = "" if name == "ours" else f"{name}_"
            found |= {
                f"{own}added_p50_ms": self._median(_Round.added_p50_ms, name),
                f"{own}added_p99_ms": self._median(_Round.added_p99_ms, name),
                f"{own}stream_added_ms_per_chunk": self._median(_Round.added_ms_per_chunk, name),
                f"{own}chunk_delay_added_ms": self._median(_Round.added_delay_ms, name),
            }
        for key, measured in self._loads.items():
            loads = [load for load, _ in measured]
            found |= {
                f"{key}_rps": statistics.median(load.rps for load in loads),
                f"{key}_p50_ms": statistics.median(load.p50_ms for load in loads),
                f"{key}_p99_ms": statistics.median(load.p99_ms for load in loads),
                f"{key}_cpu_ms": statistics.median(cpu_ms for _, cpu_ms in measured),
            }
        found["chunks_per_s"] = found[f"ours_{Cell('stream', STATED).name}_rps"] * CHUNK_COUNT
        return found

    def _median(self, of: Callable[[_Round, str], float], name: str) -> float:
        return statistics.median(of(one, name) for one in self._rounds)
