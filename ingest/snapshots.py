"""What a snapshot of Postgres's sees, so that reading a table and reading the log do not overlap.

A commit's place in the log is not when it became visible: its record is written before, and with
synchronous replication long before. So what a snapshot has seen of the log is told by transaction
ids, not by a position.

https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT
"""

from typing import Final

from msgspec import Struct

_XID_COUNT: Final = 2**32


class Snapshot(Struct, frozen=True):
    """Transaction ids have 64 bits here; the log tells the lower 32."""

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction, by the log's 32 bits, is visible."""
        # Ids in use lie within half of the circle, as everywhere in Postgres.
        behind = (self.xmax - xid) % _XID_COUNT
        if behind == 0 or behind >= _XID_COUNT // 2:
            return False
        return self.xmax - behind not in self.in_progress

    def includes(self, other: "Snapshot") -> bool:
        """Whether it sees all that the other sees: whether it was taken then or later."""
        return self.xmax >= other.xmax and all(
            xid >= other.xmax or xid in other.in_progress for xid in self.in_progress
        )

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}"


def parse_snapshot(text: str) -> Snapshot:
    """Read `734:740:736,738`, as pg_current_snapshot() writes it. Raises ValueError."""
    xmin, xmax, in_progress = text.split(":")
    ids = frozenset(map(int, in_progress.split(","))) if in_progress else frozenset()
    return Snapshot(int(xmin), int(xmax), ids)
