"""Log sequence numbers: positions in Postgres's write-ahead log.

https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

from typing import NewType

LSN = NewType("LSN", int)
"""A byte position in the write-ahead log, as an unsigned 64-bit integer."""

ZERO = LSN(0)
"""Postgres's "no position": as the start of replication it means "where the slot stands"."""


def parse_lsn(text: str) -> LSN:
    """Read `16/B374D848`. Raises ValueError."""
    high, slash, low = text.partition("/")
    if not slash or len(high) > 8 or len(low) > 8:
        raise ValueError(f"not a log sequence number: {text!r}")
    return LSN(int(high, 16) << 32 | int(low, 16))


def format_lsn(lsn: LSN) -> str:
    """Write as Postgres does: two hexadecimal halves, `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
