"""What a projection has yet to apply, without IO.

    the log → [ to be read again ] → [ commits in memory ] → what comes

Commits wait in memory, up to a limit. What comes beyond it is not kept: it is in the log, which the
slot keeps because `position` does not pass it, and is read again when there is room.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, ZERO


class Limits(Struct, frozen=True):
    change_count_max: int = 50_000
    """Changes that wait in memory."""
    bytes_max: int = 16 * 1024**2
    """The same as the log has them, undecoded; what lies in files does not count."""
    batch_change_count_max: int = 5_000
    """Changes of one transaction; a larger commit has one to itself."""


class Missed(Struct, frozen=True):
    """A part of the log: the commits with `after` < LSN <= `until`."""

    after: LSN
    until: LSN
    since: datetime
    """When the first of them that matters was committed."""


class _Waiting(Struct, frozen=True):
    commit: Commit
    before: LSN
    """The commit before it. Not `commit.lsn - 1`: a commit's LSN is the end of its record, and what
    is acknowledged past the record's beginning is never sent again."""


class Backlog:
    """Of one projection."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._waiting: deque[_Waiting] = deque()
        self._last_seen = ZERO
        self._covered = ZERO
        self._rereading: Missed | None = None
        """Lies before what waits."""
        self._missed: Missed | None = None
        """Lies behind what waits, and reaches up to the last commit seen."""
        self.waiting_change_count = 0
        self.waiting_bytes = 0

    def take(self, commit: Commit, *, is_wanted: bool) -> None:
        """The next commit of the log."""
        before, self._last_seen = self._last_seen, commit.lsn
        if not is_wanted or commit.lsn <= self._covered or self._missed is not None:
            return
        if self._is_full:
            self._missed = Missed(before, before, commit.at)
            return
        self._waiting.append(_Waiting(commit, before))
        self._count(commit, 1)

    def cover(self, lsn: LSN) -> None:
        """Everything up to here was applied before, by another process: after a restart the log
        comes again from where the slowest of its readers was.
        """
        self._covered = max(self._covered, lsn)
        while self._waiting and self._waiting[0].commit.lsn <= lsn:
            self._count(self._waiting.popleft().commit, -1)
        if self._rereading is not None:
            self.read_again(min(max(self._rereading.after, lsn), self._rereading.until), None)
        if self._missed is not None:
            after = max(self._missed.after, lsn)
            is_left = after < self._last_seen
            self._missed = Missed(after, after, self._missed.since) if is_left else None

    @property
    def position(self) -> LSN | None:
        """Up to where all is durable; None while there is nothing to apply, since then all is."""
        if self._rereading is not None:
            return self._rereading.after
        if self._waiting:
            return self._waiting[0].before
        return None if self._missed is None else self._missed.after

    @property
    def since(self) -> datetime | None:
        """When the oldest commit was made that is not applied."""
        if self._rereading is not None:
            return self._rereading.since
        if self._waiting:
            return self._waiting[0].commit.at
        return None if self._missed is None else self._missed.since

    @property
    def is_behind(self) -> bool:
        """Whether there is something to read again."""
        return self._rereading is not None or self._missed is not None

    # What is to be applied next

    def batch(self) -> Sequence[Commit]:
        """The commits at the head, which stay there until they are `forgotten`. None where nothing
        waits, or something is to be read again before.
        """
        if self._rereading is not None:
            return ()
        batch: list[Commit] = []
        change_count = 0
        for waiting in self._waiting:
            change_count += len(waiting.commit.changes)
            if batch and change_count > self._limits.batch_change_count_max:
                break
            batch.append(waiting.commit)
        return batch

    def forget(self, batch: Sequence[Commit]) -> None:
        """These were applied, the first that wait."""
        for commit in batch:
            waiting = self._waiting.popleft()
            assert waiting.commit is commit
            self._count(commit, -1)

    def missed(self) -> Missed | None:
        """What is to be read again next: None where nothing is, or commits wait before it.

        From then on commits are kept again, behind this part.
        """
        if self._rereading is None and self._missed is not None and not self._waiting:
            self._rereading = Missed(self._missed.after, self._last_seen, self._missed.since)
            self._missed = None
        return self._rereading

    def read_again(self, position: LSN, at: datetime | None) -> None:
        """Applied up to `position`, where a commit of time `at` stands."""
        assert self._rereading is not None
        since = at or self._rereading.since
        self._rereading = Missed(position, self._rereading.until, since)
        if position >= self._rereading.until:
            self._rereading = None

    @property
    def _is_full(self) -> bool:
        return bool(self._waiting) and (
            self.waiting_change_count >= self._limits.change_count_max
            or self.waiting_bytes >= self._limits.bytes_max
        )

    def _count(self, commit: Commit, sign: int) -> None:
        self.waiting_change_count += sign * len(commit.changes)
        self.waiting_bytes += sign * commit.held_bytes
