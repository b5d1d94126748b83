"""Many calls of all kinds, one after another: what memory comes to."""

from collections.abc import Callable
from typing import Final

from . import machine
from .comparison import STATED, Cell

SLICE_S: Final = 2.0
MIX: Final = (Cell("whole", STATED), Cell("stream", STATED), Cell("cached", STATED))
WARM_UP_SLICES: Final = 2 * len(MIX)
"""After which memory is first read: caches and pools have what they need then."""

PRINTED: Final = 10
"""Readings that are printed of one run."""


def measure(
    perform: Callable[[Cell, float], int], request_count: int, *, api_pid: int, stream_pid: int
) -> dict[str, float]:
    """Resident memory of the api's worker and of the stream, before and after so many calls.

    `perform` is given a cell and seconds, and answers how many calls were made.
    """
    for number in range(WARM_UP_SLICES):
        perform(MIX[number % len(MIX)], SLICE_S)
    before_mb, stream_before_mb = _worker_mb(api_pid), machine.rss_mb(stream_pid)
    done, slices, peak_mb, printed = 0, 0, before_mb, 0
    while done < request_count:
        done += perform(MIX[slices % len(MIX)], SLICE_S)
        slices += 1
        now_mb = _worker_mb(api_pid)
        peak_mb = max(peak_mb, now_mb)
        if done * PRINTED // request_count > printed:
            printed = done * PRINTED // request_count
            print(f"{done:8} calls: {now_mb:6.1f} MB", flush=True)
    after_mb = _worker_mb(api_pid)
    return {
        "memory_calls": done,
        "memory_before_mb": before_mb,
        "memory_after_mb": after_mb,
        "memory_peak_mb": peak_mb,
        "memory_growth_mb": after_mb - before_mb,
        "memory_stream_before_mb": stream_before_mb,
        "memory_stream_after_mb": machine.rss_mb(stream_pid),
    }


def _worker_mb(api_pid: int) -> float:
    return machine.child_rss_mb(api_pid) or 0
