"""How far the log is read, delivered and durable, and so what may be acknowledged; without IO.

What is acknowledged is never sent again. The rule therefore rests on two facts:

- The server sends commits in the order of their LSNs. A keepalive's `wal_end` says that every
  commit up to there was sent before it.
- `delivered` only advances when each reader was handed all that came before. So between the last
  commit handed over and `delivered` there is no commit of ours, only others' traffic.

Hence a reader whose position has reached the last commit it was handed misses nothing up to
`delivered`, and one that has not holds the acknowledgement at its position.
"""

from collections.abc import Iterable

from butterbase.ingest.lsn import LSN, ZERO


class Progress:
    """Of one consumer, over all its connections: LSNs only grow."""

    def __init__(self) -> None:
        self._last_commit = ZERO
        self._delivered = ZERO
        self._acknowledged = ZERO

    def is_repeated(self, commit: LSN) -> bool:
        """Whether this process delivered the commit before: after a new connection the server
        starts over behind the last acknowledgement.
        """
        return commit <= self._last_commit

    def begin_delivery(self, commit: LSN) -> None:
        """The commit is about to be handed to the readers."""
        assert commit > self._last_commit
        self._last_commit = commit

    def advance(self, lsn: LSN) -> None:
        """Every commit up to here was handed to each reader."""
        self._delivered = max(self._delivered, lsn)

    def acknowledge(self, positions: Iterable[LSN | None], *, held_at: LSN | None = None) -> LSN:
        """What may be acknowledged, given the readers' positions (None holds nothing back), and
        what must come again whatever they say (see assembler.Prepared).
        """
        safe = min(
            (
                position
                for position in positions
                if position is not None and position < self._last_commit
            ),
            default=self._delivered,
        )
        if held_at is not None:
            safe = min(safe, held_at)
        self._acknowledged = max(self._acknowledged, min(safe, self._delivered))
        return self._acknowledged
