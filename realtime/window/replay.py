"""The replay window: the commits of late, so that who comes back is told what it missed. Pure.

    gone │ entries: the last minutes, by age, by log between, by memory │ what comes next
         floor                                                         tail

What lies behind the floor cannot be told again. For the position of a change that is a matter of
LSNs. That of a read is a snapshot, and a commit may have been invisible to it although its record
had long been written; so the floor has a snapshot too, of which it is known that it sees all that
is gone. A read that was made then or later misses nothing of what is gone.

Such snapshots are noted as time goes on. A horizon says that all before its place is visible, but
for what it names.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ingest.changes import Commit, LoggedChanges
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.ingest.snapshots import Snapshot
from butterbase.realtime.window.position import ChangePosition, Position, ReadPosition

ENTRY_BYTES: Final = 300
"""Of a commit without changes."""

DECODED_FACTOR: Final = 4
"""What a decoded commit takes, compared with its messages."""

CHANGE_BYTES: Final = 500
"""Where there are no messages to be measured."""

HORIZON_COUNT_MAX: Final = 128
_DROPPED_COUNT_MAX: Final = 1024


class WindowLimits(Struct, frozen=True):
    age_s: float
    log_bytes: int
    memory_bytes: int


class Floor(Struct, frozen=True):
    """What cannot be told again: all commits up to `lsn`."""

    lsn: LSN
    change_count: int | None
    """Of the commit that ends there; None where that is not known."""
    snapshot: Snapshot
    """Sees all of them."""


class _Entry(Struct, frozen=True):
    commit: Commit
    """Without its changes where they are of tables that nobody can subscribe to."""
    change_count: int
    arrived_s: float
    held_bytes: int


_GONE: Final = _Entry(Commit(ZERO, datetime.min.replace(tzinfo=UTC), 0, ()), 0, 0.0, 0)


class _Horizon(Struct, frozen=True):
    """The snapshot sees all before the place, but for what is missing: xids by their places."""

    place: int
    snapshot: Snapshot
    missing: Mapping[int, int]
    noted_s: float

    def is_seen_by(self, snapshot: Snapshot, start: int) -> bool:
        """Whether the other sees all before `start`, which is not behind our place."""
        return snapshot.includes(self.snapshot) and all(
            snapshot.sees(xid) for place, xid in self.missing.items() if place < start
        )


class ReplayWindow:
    """Places count the commits since the beginning; `end` is that of the next to come.

    `now_s` are of a clock that only goes forward.
    """

    def __init__(self, limits: WindowLimits, schemas: Collection[str]) -> None:
        """`schemas`: where tables can be subscribed to."""
        self._limits = limits
        self._schemas = frozenset(schemas)
        # Those that are gone stay at the front of the list for a while, as _GONE.
        self._entries: list[_Entry] = []
        self._gone_count = 0
        self._first_place = 0
        self._held_bytes = 0
        # Of what is gone: the last commit.
        self._gone_lsn = ZERO
        self._gone_change_count: int | None = None
        self._horizons: deque[_Horizon] = deque()
        self._unnoted: dict[int, int] = {}
        """Gone before a horizon told of them: xids by places."""

    def begin(self, floor: Floor, now_s: float) -> None:
        """Start anew: the next commit is the first behind the floor."""
        self._first_place = self.end
        self._entries = []
        self._gone_count = self._held_bytes = 0
        self._gone_lsn, self._gone_change_count = floor.lsn, floor.change_count
        self._unnoted = {}
        self._horizons = deque([_Horizon(self._first_place, floor.snapshot, {}, now_s)])

    # What is in it

    @property
    def start(self) -> int:
        """The place of the oldest entry."""
        return self._first_place + self._gone_count

    @property
    def end(self) -> int:
        return self._first_place + len(self._entries)

    @property
    def tail(self) -> LSN:
        """The last commit's LSN."""
        return self.lsn_before(self.end)

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def commit_at(self, place: int) -> Commit | None:
        """None where it is gone or still to come."""
        return self._at(place).commit if self.start <= place < self.end else None

    def lsn_before(self, place: int) -> LSN:
        """Of the commit before the place, which is between `start` and `end`."""
        return self._at(place - 1).commit.lsn if place > self.start else self._gone_lsn

    def _at(self, place: int) -> _Entry:
        return self._entries[place - self._first_place]

    # As commits come and go

    def add(self, commit: Commit, now_s: float) -> None:
        count = len(commit.changes)
        is_told = any(schema in self._schemas for schema, _ in commit.tables)
        if count and not is_told and not commit.has_ddl:
            commit = replace(commit, changes=())
        held_bytes = ENTRY_BYTES + _bytes_of(commit)
        self._entries.append(_Entry(commit, count, now_s, held_bytes))
        self._held_bytes += held_bytes
        self.trim(now_s)

    def trim(self, now_s: float) -> None:
        """Let go of what is too old or too much. The last commit stays, for those who know it, and
        what is not visible yet does not age.
        """
        oldest_s = now_s - self._limits.age_s
        lsn_min = self.tail - self._limits.log_bytes
        missing = self._horizons[-1].missing if self._horizons else {}
        while self.start < self.end - 1:
            entry = self._at(self.start)
            is_old = entry.arrived_s < oldest_s and self.start not in missing
            is_too_much = self._held_bytes > self._limits.memory_bytes or entry.commit.lsn < lsn_min
            if not (is_old or is_too_much):
                break
            self._let_go(entry)

    def _let_go(self, entry: _Entry) -> None:
        place = self.start
        if not self._horizons or place >= self._horizons[-1].place:
            self._unnoted[place] = entry.commit.xid
        self._held_bytes -= entry.held_bytes
        self._gone_lsn, self._gone_change_count = entry.commit.lsn, entry.change_count
        self._entries[self._gone_count] = _GONE
        self._gone_count += 1
        if self._gone_count >= _DROPPED_COUNT_MAX and 2 * self._gone_count > len(self._entries):
            del self._entries[: self._gone_count]
            self._first_place += self._gone_count
            self._gone_count = 0
        while len(self._horizons) > 1 and self._horizons[0].place < self.start:
            self._horizons.popleft()

    # What is visible

    @property
    def is_noted(self) -> bool:
        """Whether all entries are known to be visible."""
        last = self._horizons[-1] if self._horizons else None
        return last is not None and last.place == self.end and not last.missing

    def note(self, snapshot: Snapshot, now_s: float) -> None:
        """Take note of a present snapshot."""
        missing: dict[int, int] = {}
        place = self.start
        if self._horizons:
            last = self._horizons[-1]
            if not snapshot.includes(last.snapshot):
                return  # overtaken on its way to us
            if last.place == self.end and not last.missing:
                return  # of two that see the same, the earlier one asks less of others
            missing.update(last.missing)
            place = max(last.place, self.start)
        missing.update(self._unnoted)
        missing.update((at, self._at(at).commit.xid) for at in range(place, self.end))
        missing = {at: xid for at, xid in missing.items() if not snapshot.sees(xid)}
        self._unnoted = {}
        spacing_s = self._limits.age_s / HORIZON_COUNT_MAX
        if len(self._horizons) > 1 and now_s - self._horizons[-2].noted_s < spacing_s:
            self._horizons.pop()
        self._horizons.append(_Horizon(self.end, snapshot, missing, now_s))

    def _horizon_from(self, place: int) -> _Horizon | None:
        """The first that tells of all before the place."""
        return next((h for h in self._horizons if h.place >= place), None)

    # Coming back

    def place_of(self, position: Position) -> int | None:
        """Where to go on: all before it is done with. None: something may be gone that is not.

        Of what follows, the position itself says what is done with (`is_before`).
        """
        if isinstance(position, ReadPosition):
            return self._place_of_read(position)
        return self._place_of_change(position)

    def _place_of_change(self, position: ChangePosition) -> int | None:
        lsn, ordinal = position.lsn, position.ordinal
        if lsn < self._gone_lsn:
            return None
        if lsn == self._gone_lsn:
            count = self._gone_change_count
            is_whole = ordinal is None or (count is not None and ordinal >= count)
            return self.start if is_whole else None
        index = bisect_left(
            self._entries, lsn, lo=self._gone_count, key=lambda entry: entry.commit.lsn
        )
        if index < len(self._entries):
            entry = self._entries[index]
            is_whole = ordinal is None or ordinal >= entry.change_count
            if entry.commit.lsn == lsn and is_whole:
                index += 1
        return self._first_place + index

    def _place_of_read(self, position: ReadPosition) -> int | None:
        snapshot = position.snapshot
        first = self._horizon_from(self.start)
        if first is None or not first.is_seen_by(snapshot, self.start):
            return None
        last = next(h for h in reversed(self._horizons) if snapshot.includes(h.snapshot))
        unseen = [
            place
            for place, xid in last.missing.items()
            if place >= self.start and not snapshot.sees(xid)
        ]
        if unseen:
            return min(unseen)
        place = max(last.place, self.start)
        while place < self.end:
            commit = self._at(place).commit
            if position.is_before(commit.lsn, commit.xid, 1):
                break
            place += 1
        return place

    # What the log need not keep

    def released(self, now_s: float, log_end: LSN) -> Floor | None:
        """What is too old to be kept in the log, the last commit included; None where that cannot
        be said yet. `log_end`: up to where the log was read.
        """
        by_age = bisect_left(
            self._entries,
            now_s - self._limits.age_s,
            lo=self._gone_count,
            key=lambda entry: entry.arrived_s,
        )
        by_log = bisect_right(
            self._entries,
            LSN(log_end - self._limits.log_bytes),
            lo=self._gone_count,
            key=lambda entry: entry.commit.lsn,
        )
        if not self._horizons:
            return None
        last = self._horizons[-1]
        place = min(self._first_place + max(by_age, by_log), last.place, *last.missing)
        if place < self.start:
            return None  # what is gone may not be visible yet
        seen = next(
            h for h in self._horizons if h.place >= place and min(h.missing, default=place) >= place
        )
        count = self._at(place - 1).change_count if place > self.start else self._gone_change_count
        return Floor(self.lsn_before(place), count, seen.snapshot)


def _bytes_of(commit: Commit) -> int:
    if isinstance(commit.changes, LoggedChanges):
        return DECODED_FACTOR * commit.held_bytes
    return CHANGE_BYTES * len(commit.changes)
