"""A line of the log for each call: who called what, how it ended, what it used and cost.

Texts of requests and answers are not in it, nor keys.
"""

import asyncio
import logging
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from butterbase.ai.money.amounts import format_usd
from butterbase.ai.money.journal import Settlement

LOGGER: Final = "butterbase.ai.calls"

PAUSE_S: Final = 0.05
"""For so long lines wait for others: written together each takes half the time."""

_log = logging.getLogger(LOGGER)
_ENCODER = msgspec.json.Encoder()


class CallLine(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Fields are left out where there is nothing to tell."""

    request_id: str
    trace_id: str = ""
    call_id: UUID
    app: str
    user: UUID | None = None
    key: UUID | None = None
    function: str = ""
    index: str = ""
    endpoint: str
    requested_model: str = ""
    provider: str = ""
    model: str = ""
    stream: bool = False
    step: int = 1
    """Of a request whose tools the gateway runs: which of its calls this is."""
    status: str
    http_status: int | None = None
    error: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: str = "missing"
    cost_usd: str | None = None
    price_source: str = "none"
    byok: bool = False
    cache: str = "off"
    saved_usd: str | None = None
    guards: dict[str, str] = {}
    budget_action: str = ""
    latency_ms: int
    first_token_ms: int | None = None

    def __str__(self) -> str:
        return _ENCODER.encode(self).decode()


def line_of(settlement: Settlement, trace_id: str | None) -> CallLine:
    call = settlement.call
    return CallLine(
        request_id=settlement.request_id,
        trace_id=trace_id or "",
        call_id=settlement.call_id,
        app=settlement.app_id,
        user=settlement.user_id,
        key=call.key_id,
        function=call.function or "",
        index=call.index or "",
        endpoint=call.endpoint,
        requested_model=call.requested_model,
        provider=call.provider,
        model=call.model if call.provider else "",
        stream=call.stream,
        step=call.step,
        status=call.status,
        http_status=call.http_status,
        error=call.error_code or "",
        attempts=call.attempts,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.completion_tokens,
        cached_tokens=call.cached_tokens,
        reasoning_tokens=call.reasoning_tokens,
        usage_source=call.usage_source,
        cost_usd=_usd(call.cost_nanos),
        price_source=call.price_source,
        byok=call.is_byok,
        cache=call.cache,
        saved_usd=_usd(call.saved_nanos),
        guards=call.guards,
        budget_action=call.budget_action or "",
        latency_ms=call.latency_ms,
        first_token_ms=call.first_token_ms,
    )


def _usd(nanos: int) -> str | None:
    return format_usd(nanos) if nanos else None


class CallLog:
    """The gateway's observer."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Settlement, str | None]] = []

    def ended(self, settlement: Settlement, trace_id: str | None) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(PAUSE_S, self.flush)
        self._waiting.append((settlement, trace_id))

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for settlement, trace_id in waiting:
            _log.info(line_of(settlement, trace_id))
