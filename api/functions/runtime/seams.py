"""What the runtime is given: functions, a place for what is known of calls, operations."""

from typing import Any, Protocol

from butterbase.api.functions.runtime.model import CallContext, FunctionVersion, LogLine, Outcome


class FunctionSource(Protocol):
    async def version(self, app_id: str, name: str, revision: str | None) -> FunctionVersion:
        """The active one when no revision is given. Raises ButterbaseError. Asked for each call."""
        ...


class Recorder(Protocol):
    """Neither may wait or raise."""

    def log(self, version: FunctionVersion, context: CallContext, line: LogLine) -> None:
        """A line as it is written. Secrets are out of it."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Once for each call."""
        ...


class Operations(Protocol):
    async def perform(
        self, version: FunctionVersion, context: CallContext, name: str, arguments: Any
    ) -> Any:
        """What `ctx` asks of the platform, JSON to JSON. Raises ButterbaseError."""
        ...
