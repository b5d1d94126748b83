"""Where a subscriber stands in the log, as it is told to clients and comes back from them.

    0/16B3748/3              of a change: the end of its commit, and its place among the commit's
    0/16B3748                between commits: all up to there are done with
    0/16B3748@734:740:736    of a read: the log's end just after its snapshot, and the snapshot

A read needs its snapshot: a commit is visible only some time after its record was written, which
with synchronous replication may be long. So what a read did not see may lie before the log's end,
and its LSN alone would lose it.
"""

import re
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.lsn import LSN, format_lsn, parse_lsn
from butterbase.ingest.snapshots import Snapshot, parse_snapshot
from butterbase.realtime.errors import InvalidPositionError
from butterbase.sql.pipeline import Executor, Statement

TEXT_LENGTH_MAX: Final = 64 * 1024
"""A snapshot names the transactions in progress; there may be thousands."""

_LSN: Final = r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}"
_PATTERN: Final = re.compile(
    rf"(?P<lsn>{_LSN})(?:/(?P<ordinal>\d{{1,10}})|@(?P<snapshot>\d{{1,20}}:\d{{1,20}}:[\d,]*))?",
    re.ASCII,
)
_READ: Final = Statement(b"select pg_current_wal_insert_lsn()::text, pg_current_snapshot()::text")


class ChangePosition(Struct, frozen=True):
    """All up to here is done with: of the commit that ends at `lsn` the changes up to `ordinal`."""

    lsn: LSN
    ordinal: int | None = None
    """Counts a commit's changes from 1; None for all of them."""

    def is_before(self, lsn: LSN, _xid: int, ordinal: int) -> bool:
        """Whether a commit's change is still to come."""
        if lsn != self.lsn:
            return lsn > self.lsn
        return self.ordinal is not None and ordinal > self.ordinal

    def __str__(self) -> str:
        place = "" if self.ordinal is None else f"/{self.ordinal}"
        return f"{format_lsn(self.lsn)}{place}"


class ReadPosition(Struct, frozen=True):
    """All that the snapshot sees is done with."""

    lsn: LSN
    """Of the log's end when the snapshot was there already: whatever lies behind it is unseen."""
    snapshot: Snapshot

    def is_before(self, lsn: LSN, xid: int, _ordinal: int) -> bool:
        return lsn > self.lsn or not self.snapshot.sees(xid)

    def __str__(self) -> str:
        return f"{format_lsn(self.lsn)}@{self.snapshot}"


Position: TypeAlias = ChangePosition | ReadPosition


class CommonPast:
    """Of what all of some positions are done with, a part that is told fast."""

    def __init__(self) -> None:
        self._lsn: LSN | None = None
        """Of changes: all commits before it are done with."""
        self._read: ReadPosition | None = None
        """The earliest of the reads."""

    def add(self, position: Position) -> None:
        if isinstance(position, ChangePosition):
            self._lsn = position.lsn if self._lsn is None else min(self._lsn, position.lsn)
        elif self._read is None or self._read.snapshot.includes(position.snapshot):
            self._read = position

    def has(self, lsn: LSN, xid: int) -> bool:
        """Whether all are done with the commit: those that were added, so of none it has all."""
        if self._lsn is not None and lsn >= self._lsn:
            return False
        return self._read is None or not self._read.is_before(lsn, xid, 1)


def parse_position(text: object) -> Position:
    """Read what a client gave. Raises InvalidPositionError."""
    if not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX:
        raise InvalidPositionError("a position is a text like 0/16B3748/3")
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise InvalidPositionError(f"{text[:80]} is not a position")
    lsn = parse_lsn(found["lsn"])
    if found["snapshot"] is not None:
        try:
            return ReadPosition(lsn, parse_snapshot(found["snapshot"]))
        except ValueError as error:
            raise InvalidPositionError(f"{text[:80]} is not a position") from error
    return ChangePosition(lsn, None if found["ordinal"] is None else int(found["ordinal"]))


def format_change(lsn: LSN, ordinal: int) -> bytes:
    """The position of a change."""
    return b"%X/%X/%d" % (lsn >> 32, lsn & 0xFFFFFFFF, ordinal)


async def read_position(executor: Executor) -> ReadPosition:
    """Of a read at present. Raises DatabaseUnavailableError."""
    (result,) = await executor.run(_READ)
    lsn, snapshot = result.rows()[0]
    assert lsn is not None
    assert snapshot is not None
    return ReadPosition(parse_lsn(lsn.decode()), parse_snapshot(snapshot.decode()))
