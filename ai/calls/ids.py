"""Ids of calls, in the order in which they were begun: UUIDs of version 7.

Events that are written together are sorted by them, so the log tells the steps of a request one
after the other, and the index of a table that only grows is written at its end.
https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
"""

import secrets
import time
from typing import Final
from uuid import UUID

_NS_PER_MS: Final = 1_000_000
_FRACTIONS: Final = 1 << 12
"""Of a millisecond, which 12 of the random bits tell (method 3 of the RFC's section 6.2)."""


def new_id(now_ns: int | None = None) -> UUID:
    """`now_ns` is nanoseconds since 1970."""
    ms, ns = divmod(time.time_ns() if now_ns is None else now_ns, _NS_PER_MS)
    fraction = ns * _FRACTIONS // _NS_PER_MS
    return UUID(
        int=ms << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62),
    )
