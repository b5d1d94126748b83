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

    @property
    def delivered(self) -> LSN:
        return self._delivered

    def is_repeated(self, commit: LSN) -> bool:
        """Whether this process delivered the commit before. A new connection starts behind what was
        delivered; were a server to start further back, nothing would be delivered twice.
        """
        return commit <= self._last_commit

    def begin_delivery(self, commit: LSN) -> None:
        """The commit is about to be handed to the readers."""
        assert commit > self._last_commit
        self._last_commit = commit

    def advance(self, lsn: LSN) -> None:
        """Every commit up to here was handed to each reader."""
        self._delivered = max(self._delivered, lsn)

    def begin(self, confirmed: LSN) -> None:
        """What comes before is not told to us: it was acknowledged, here or elsewhere."""
        self._delivered = max(self._delivered, confirmed)
        self._acknowledged = max(self._acknowledged, confirmed)

    def durable(self, positions: Iterable[LSN | None]) -> LSN:
        """What all readers are done with, given their positions (None holds nothing back)."""
        safe = min(
            (
                position
                for position in positions
                if position is not None and position < self._last_commit
            ),
            default=self._delivered,
        )
        return min(safe, self._delivered)

    def acknowledge(
        self, positions: Iterable[LSN | None], *, held_at: Iterable[LSN | None] = ()
    ) -> LSN:
        """What may be acknowledged: what readers are done with and need not come again for others
        (`held_at`: see assembler.Prepared and consumer.Retention).
        """
        held = [lsn for lsn in held_at if lsn is not None]
        self._acknowledged = max(self._acknowledged, min([self.durable(positions), *held]))
        return self._acknowledged
