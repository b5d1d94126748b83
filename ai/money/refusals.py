"""Why a call was not admitted, as `butterbase.ai_admit` tells it."""

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from butterbase.ai.money.amounts import format_usd


class BudgetRefusal(Struct, frozen=True, rename="camel"):
    """A budget without room for the call's upper bound."""

    id: int
    scope: Literal["user", "key", "model", "app", "global", "plan"]
    subject: str
    """The user's or key's id, or the model; else empty."""
    period: Literal["day", "month", "lifetime"]
    action: Literal["block", "reroute"]
    limit_nanos: int
    spent_nanos: int
    reserved_nanos: int
    """Held by calls that run."""
    reroute_to: str | None
    resets_at: datetime | None
    """When the next period begins; None for never."""


class LimitRefusal(Struct, frozen=True, rename="camel"):
    """A rate limit whose bucket is empty."""

    scope: Literal["user", "key", "model", "app"]
    subject: str
    kind: Literal["requests", "tokens"]
    requests_per_minute: int | None
    tokens_per_minute: int | None


class ShownBudget(Struct, frozen=True, rename="camel"):
    """What a caller is told of a budget that refused them."""

    scope: str
    period: str
    resets_at: datetime | None
    subject: str | UnsetType = UNSET
    limit_usd: str | UnsetType = UNSET
    spent_usd: str | UnsetType = UNSET
    reserved_usd: str | UnsetType = UNSET


def shown(refusal: BudgetRefusal, *, is_service: bool) -> ShownBudget:
    """Of amounts a user sees their own, the app's keys the app's; the operator's nobody."""
    if refusal.scope == "global" or not (is_service or refusal.scope == "user"):
        return ShownBudget(refusal.scope, refusal.period, refusal.resets_at)
    return ShownBudget(
        refusal.scope,
        refusal.period,
        refusal.resets_at,
        refusal.subject or UNSET,
        format_usd(refusal.limit_nanos),
        format_usd(refusal.spent_nanos),
        format_usd(refusal.reserved_nanos),
    )
