"""The state of one call: what is known of it so far, for its event and its answer's headers."""

import time
from datetime import UTC, datetime
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.ids import new_id
from butterbase.ai.http.problems import status_of
from butterbase.ai.money.amounts import format_usd
from butterbase.ai.money.journal import Settlement
from butterbase.ai.money.ledger import Admitted
from butterbase.ai.money.prices import NOTHING, Charge
from butterbase.ai.routing.resolution import Target
from butterbase.ai.seams import CacheState
from butterbase.ai.telemetry.protocols import Trace
from butterbase.ai.wire.form import Usage
from butterbase.projections.usage import AiCall
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import ButterbaseError

Status: TypeAlias = Literal["ok", "failed", "cancelled", "timeout"]
UsageSource: TypeAlias = Literal["reported", "missing", "estimated"]
Header: TypeAlias = tuple[bytes, bytes]

_NO_USAGE = Usage()


class Caller(Struct, frozen=True):
    app_id: str
    role: str
    user_id: UUID | None
    """None for the app's own keys."""
    request_id: str
    key_id: UUID | None = None
    """The app key that calls."""
    function: str | None = None
    """The app's function that calls."""
    index: str | None = None
    """The app's index whose passages, or a question to which, are embedded."""

    @property
    def is_known(self) -> bool:
        """A user, or a key of the app's that is not public. A user's token that names no user is
        nobody's: no budget of users could hold it."""
        if self.role == AUTHENTICATED:
            return self.user_id is not None
        return self.role == SERVICE_ROLE


class Call:
    def __init__(self, caller: Caller, endpoint: Endpoint, *, step: int = 1) -> None:
        self.id = new_id()
        self.caller = caller
        self.endpoint = endpoint
        self.step = step
        """Of a request whose tools the gateway runs: which of its calls this is."""
        self.began_s = time.monotonic()
        self.requested_model = ""
        self.only_model: str | None = None
        """See Given."""
        self.is_streamed = False
        self.target: Target | None = None
        """The one that was called last."""
        self.attempt_count = 0
        self.is_sent = False
        """A request is at the provider, and its answer has not ended."""
        self.usage: Usage | None = None
        self.usage_source: UsageSource = "missing"
        self.charge: Charge = NOTHING
        self.lost = Usage()
        """Of attempts that failed while their provider was at work; counted here."""
        self.lost_nanos = 0
        self.first_token_s: float | None = None
        self.has_answered = False
        """The client has been sent the beginning of an answer that is none of ours."""
        self.admitted: Admitted | None = None
        self.budget_action: Literal["block", "reroute", "limit"] | None = None
        self.cache: CacheState = "off"
        self.cache_similarity: float | None = None
        self.saved_nanos = 0
        self.served_by: tuple[str, str] | None = None
        """Provider and model of an answer from the cache."""
        self.guards: dict[str, str] = {}
        self.trace: Trace | None = None

    @property
    def provider(self) -> str:
        if self.served_by is not None:
            return self.served_by[0]
        return "" if self.target is None else self.target.provider.name

    @property
    def model(self) -> str:
        if self.served_by is not None:
            return self.served_by[1]
        return self.requested_model if self.target is None else self.target.model

    @property
    def cost_nanos(self) -> int:
        """With that of lost attempts, as far as it was reserved for: they are an estimate, and
        must not bring a budget beyond its limit."""
        return self.cost_with(self.charge.nanos)

    def cost_with(self, nanos: int) -> int:
        """As it would be with this charge."""
        reserved = 0 if self.admitted is None else self.admitted.reserved_nanos
        return max(nanos, min(nanos + self.lost_nanos, reserved))

    def settlement(self, status: Status, error: ButterbaseError | None) -> Settlement:
        caller = self.caller
        return Settlement(
            self.id,
            caller.app_id,
            caller.role,
            caller.user_id,
            caller.request_id,
            self.event(status, error),
        )

    def event(self, status: Status, error: ButterbaseError | None) -> AiCall:
        usage, admitted, first_s = self.usage or _NO_USAGE, self.admitted, self.first_token_s
        target = self.target
        return AiCall(
            endpoint=self.endpoint,
            provider=self.provider,
            model=self.model,
            stream=self.is_streamed,
            status=status,
            http_status=self._http_status(status, error),
            error_code=None if error is None else error.code,
            prompt_tokens=usage.prompt_tokens + self.lost.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens + self.lost.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source=self.usage_source,
            latency_ms=_ms(time.monotonic() - self.began_s),
            first_token_ms=None if first_s is None else _ms(first_s - self.began_s),
            requested_model=self.requested_model,
            key_id=self.caller.key_id,
            function=self.caller.function,
            index=self.caller.index,
            attempts=self.attempt_count,
            cache_write_tokens=usage.cache_write_tokens,
            cost_nanos=self.cost_nanos,
            price_source=self.charge.source,
            is_byok=target is not None and target.provider.is_byok,
            cache=self.cache,
            cache_similarity=self.cache_similarity,
            saved_nanos=self.saved_nanos,
            guards=self.guards,
            budget_action=self.budget_action,
            admitted_at=None if admitted is None else admitted.at,
            reserved_nanos=0 if admitted is None else admitted.reserved_nanos,
            step=self.step,
        )

    def _http_status(self, status: Status, error: ButterbaseError | None) -> int | None:
        if self.has_answered:
            return 200
        if error is not None:
            return status_of(error)
        return 200 if status == "ok" else None

    def headers(self, *, is_ended: bool) -> list[Header]:
        """What happened, for the client. Of a stream that begins the cost is not known."""
        headers = [
            (b"x-butterbase-request-id", self.caller.request_id.encode("latin-1", "replace")),
            (b"x-butterbase-attempts", b"%d" % self.attempt_count),
            (b"x-butterbase-cache", self.cache.encode()),
        ]
        if self.target is not None or self.served_by is not None:
            headers.append((b"x-butterbase-provider", _header(self.provider)))
            headers.append((b"x-butterbase-model", _header(self.model)))
        if self.cache_similarity is not None:
            similarity = b"%.4f" % self.cache_similarity
            headers.append((b"x-butterbase-cache-similarity", similarity))
        if self.budget_action == "reroute":
            headers.append((b"x-butterbase-budget-action", b"reroute"))
        if is_ended:
            headers.append((b"x-butterbase-cost-usd", format_usd(self.cost_nanos).encode()))
        left = self.remaining_nanos(is_ended=is_ended)
        if left is not None:
            headers.append((b"x-butterbase-budget-remaining-usd", format_usd(left).encode()))
        return headers

    def remaining_nanos(self, *, is_ended: bool) -> int | None:
        """What the tightest budget has left, for the app's own keys: a user is not told what the
        app may spend."""
        admitted = self.admitted
        if admitted is None or admitted.remaining_nanos is None:
            return None
        if self.caller.role != SERVICE_ROLE:
            return None
        back = max(0, admitted.reserved_nanos - self.cost_nanos) if is_ended else 0
        return admitted.remaining_nanos + back


def now() -> datetime:
    return datetime.now(UTC)


def _header(text: str) -> bytes:
    # A model may have any letters; a header may not.
    return text.encode("ascii", "replace")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
