"""A joined channel, as the hub sees it."""

from collections.abc import Callable, Sequence

from butterbase.ingest.lsn import LSN
from butterbase.realtime.matching import Binding
from butterbase.realtime.protocol import Closing, Version
from butterbase.sql.claims import Claims


class Subscriber:
    """Whoever sets its `claims` anew changes from then on what it is sent."""

    def __init__(
        self,
        *,
        topic: str,
        version: Version,
        claims: Claims,
        bindings: Sequence[Binding],
        since: LSN,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
    ) -> None:
        self.topic = topic
        self.version = version
        self.bindings = tuple(bindings)
        self.since = since
        self.send = send
        self.close = close
        self.is_open = True
        self.on_claims: Callable[[Subscriber], None] | None = None
        """Set by the hub, to be told of new claims."""
        self._claims = claims

    @property
    def claims(self) -> Claims:
        return self._claims

    @claims.setter
    def claims(self, claims: Claims) -> None:
        self._claims = claims
        if self.on_claims is not None:
            self.on_claims(self)
