"""Figures out of samples. Pure."""

from collections.abc import Sequence

from msgspec import Struct


class Load(Struct, frozen=True):
    """What one round of load came to."""

    rps: float
    p50_ms: float
    p99_ms: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of ascending samples: the smallest that `percent` of them do not exceed."""
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(int(rank), 1) - 1]
