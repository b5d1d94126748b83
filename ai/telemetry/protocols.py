"""Who is told of calls: of each when it ends, and of its steps where calls are traced.

Nobody is told by default, and then it costs a call the comparison with None.
"""

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.money.journal import Settlement
from butterbase.ai.routing.resolution import Target
from butterbase.ai.wire.form import Usage
from butterbase.sql.errors import ButterbaseError


class ToolTrace(Protocol):
    """Of one call of a tool that the gateway runs."""

    def end(self, *, status: str, error_type: str | None) -> None:
        """`status` is its event's; `error_type` our code, None where it went well."""
        ...


class Trace(Protocol):
    """Of one call, from its request to its event."""

    id: str
    """32 hexadecimal digits."""

    @property
    def carried(self) -> Mapping[bytes, bytes]:
        """Headers with which another call goes on in the same trace."""
        ...

    def tool(self, name: str, *, kind: str, call_id: str) -> ToolTrace:
        """A tool begins that the answer has called; the call itself may have ended. `kind` is
        empty for one that is not offered, whose name the model has made up."""
        ...

    def attempt(self, target: Target, asked: Asked) -> Mapping[str, str]:
        """A request to the target begins. Answers what it is to carry in its headers."""
        ...

    def began(self) -> None:
        """The first event of the attempt's stream is here."""
        ...

    def read(self, model: str | None, finish: str | None, usage: Usage | None) -> None:
        """What the attempt's answer tells of itself, in the words of its wire; None: nothing."""
        ...

    def failed(self, error: ButterbaseError) -> None:
        """The attempt came to nothing; another may follow."""
        ...

    def end(self, settlement: Settlement, error: ButterbaseError | None) -> None:
        """The call has ended, and with it the attempt that has not failed."""
        ...


class Tracer(Protocol):
    def begin(
        self,
        endpoint: Endpoint,
        *,
        app_id: str,
        user_id: UUID | None,
        request_id: str,
        headers: Mapping[bytes, bytes],
    ) -> Trace:
        """`headers` are the client's, which may be in a trace already."""
        ...


class Telemetry(Tracer, Protocol):
    async def close(self) -> None:
        """Send what waits, unless that takes too long."""
        ...


class Observer(Protocol):
    def ended(self, settlement: Settlement, trace_id: str | None) -> None:
        """Once for each call, before its event is written. Must not wait."""
        ...

    def flush(self) -> None:
        """The server stops."""
        ...
