"""A joined channel or event stream, as the hub sees it."""

from collections.abc import Callable, Sequence
from typing import Final

from butterbase.ingest.lsn import LSN, ZERO
from butterbase.realtime.changes.fanout import Form
from butterbase.realtime.changes.matching import Binding
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.window.position import Position
from butterbase.sql.claims import Claims

WHOLE: Final = 2**62
"""As an ordinal: all changes of a commit."""


class Subscriber:
    """Whoever sets its `claims` anew changes from then on what it is sent."""

    def __init__(
        self,
        *,
        topic: str,
        version: Form,
        claims: Claims,
        bindings: Sequence[Binding],
        since: Position,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_full` tells that it should take what it was sent before it is sent more of what it
        missed; changes as they happen are sent all the same.
        """
        self.topic = topic
        self.version = version
        self.bindings = tuple(bindings)
        self.since = since
        self.send = send
        self.close = close
        self.is_full = is_full
        self.is_open = True
        self.on_claims: Callable[[Subscriber], None] | None = None
        """Set by the hub, to be told of new claims."""
        self.settled = since.lsn
        """Every commit behind it is to come."""
        self._done = (ZERO, 0)
        self._claims = claims

    @property
    def done(self) -> tuple[LSN, int]:
        """All up to this change of a commit was sent, or was not for this subscriber."""
        return self._done

    @done.setter
    def done(self, done: tuple[LSN, int]) -> None:
        self._done = done
        self.settled = max(self.settled, done[0])

    def is_due(self, lsn: LSN, xid: int, ordinal: int) -> bool:
        """Whether a commit's change is to come."""
        return lsn > self.settled or (
            (lsn, ordinal) > self._done and self.since.is_before(lsn, xid, ordinal)
        )

    @property
    def claims(self) -> Claims:
        return self._claims

    @claims.setter
    def claims(self, claims: Claims) -> None:
        self._claims = claims
        if self.on_claims is not None:
            self.on_claims(self)
