"""What the calls of one request have used and cost together."""

from collections.abc import Iterable

from butterbase.ai.calls.call import Call, Header
from butterbase.ai.money.amounts import format_usd
from butterbase.ai.telemetry.protocols import Trace
from butterbase.ai.wire.form import Usage
from butterbase.ai.wire.usage import add


class Totals:
    def __init__(self) -> None:
        self.usage = Usage()
        """As the client is told it."""
        self.tool_call_count = 0
        self.has_changed = False
        """A tool that does more than read was run."""
        self._calls: list[Call] = []

    @property
    def step_count(self) -> int:
        """Calls to models."""
        return len(self._calls)

    @property
    def cost_nanos(self) -> int:
        """Of those that have ended."""
        return sum(call.cost_nanos for call in self._calls)

    @property
    def trace(self) -> Trace | None:
        """Of the first call."""
        return self._calls[0].trace if self._calls else None

    def begun(self, call: Call | None) -> None:
        if call is not None:
            self._calls.append(call)

    def told(self, usage: Usage | None) -> None:
        self.usage = add(self.usage, usage or Usage())

    @property
    def headers_now(self) -> list[Header]:
        """Where no answer of the last call is passed on."""
        return self.headers(self._calls[-1].headers(is_ended=True)) if self._calls else []

    def headers(self, last: Iterable[Header]) -> list[Header]:
        """Those of the last call, with what all calls have cost."""
        attempts = sum(call.attempt_count for call in self._calls)
        changed = {
            b"x-butterbase-cost-usd": format_usd(self.cost_nanos).encode(),
            b"x-butterbase-attempts": b"%d" % attempts,
        }
        return [
            *((name, changed.get(name, value)) for name, value in last),
            (b"x-butterbase-steps", b"%d" % self.step_count),
            (b"x-butterbase-tool-calls", b"%d" % self.tool_call_count),
        ]
