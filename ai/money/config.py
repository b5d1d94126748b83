"""What an app says of money with `ai/config`: budgets, rate limits and prices, and its plan.

Budgets and limits are rows, since admissions join them; prices are JSON in `butterbase.ai_config`.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.ai.errors import AiConfigError
from butterbase.ai.money.amounts import format_usd, parse_usd
from butterbase.ai.money.prices import PriceBook
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("money_config")

PlanName: TypeAlias = Literal["free", "pro", "enterprise"]
PLANS: tuple[PlanName, ...] = get_args(PlanName)
PRO_INCLUDED_NANOS = 10_000_000_000
OVERAGE_CREDIT_NANOS = 100_000_000

BUDGET_COUNT_MAX = 1000
LIMIT_COUNT_MAX = 1000

_Subject = Annotated[str, Meta(min_length=1, max_length=200)]
_Model = Annotated[str, Meta(min_length=1, max_length=200)]
_Hook = Annotated[
    str,
    Meta(
        pattern=r"\A([A-Za-z_][A-Za-z0-9_$]{0,62}\.[A-Za-z_][A-Za-z0-9_$]{0,62}|https?://[!-~]+)\Z",
        max_length=2000,
    ),
]
_Email = Annotated[str, Meta(pattern=r"\A[!-?A-~]+@[!-?A-~]+\Z", max_length=254)]
_Percent = Annotated[int, Meta(ge=1, le=1000)]
Period: TypeAlias = Literal["day", "month", "lifetime"]


class Budget(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What may be spent. Days and months are UTC's."""

    scope: Literal["user", "key", "model", "app"]
    period: Period
    limit_usd: Decimal
    subject: _Subject | None = None
    """The user's or key's id, or the model. None: each of them has this budget, but those that have
    one of their own with this period and action."""
    action: Literal["block", "reroute"] = "block"
    reroute_to: _Model | None = None
    """What is called in the place of the model asked for, with the action `reroute`."""
    alert_at: Annotated[list[_Percent], Meta(max_length=10)] = []
    """Percent of the limit: when that much is spent, an `ai.budget.alert` event is written."""


class RateLimit(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Held by all workers together; as much may come at once as in a minute."""

    scope: Literal["user", "key", "model", "app"]
    subject: _Subject | None = None
    """As of a budget; a model is the one that is asked for."""
    requests_per_minute: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1, le=10**9)] | None = None


class Alerts(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Who is told when a budget passes one of its `alertAt`, besides the event."""

    hook: _Hook | None = None
    """A URL, which is sent a signed POST, or an SQL function `schema.name` of one jsonb; as the
    hooks of auth, and with their secret."""
    email: _Email | None = None
    """Through the app's mail server."""


class Plan(Struct, frozen=True, rename="camel"):
    """What the operator lets the app use, but for calls with provider keys of its own."""

    plan: PlanName = "enterprise"
    period: Period | None = None
    """None: it has no limit."""
    limit_usd: str | None = None
    """With all the credits that may be bought; None for any number of them."""
    spent_usd: str | None = None
    reserved_usd: str | None = None
    overage_credits: int = 0
    """To be paid for this month: each stands for 0.10 dollars beyond what is included."""
    overage_credits_max: int | None = 0
    """None: any number."""


class MoneyConfig(Struct, frozen=True, rename="camel"):
    """As it is read back."""

    plan: Plan
    budgets: list[Budget] = []
    limits: list[RateLimit] = []
    prices: PriceBook = PriceBook()
    alerts: Alerts = Alerts()


class MoneyChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A field that is left out stays as it is; null unsets it. A list replaces the one before."""

    budgets: Annotated[list[Budget], Meta(max_length=BUDGET_COUNT_MAX)] | UnsetType | None = UNSET
    limits: Annotated[list[RateLimit], Meta(max_length=LIMIT_COUNT_MAX)] | UnsetType | None = UNSET
    prices: PriceBook | UnsetType | None = UNSET
    alerts: Alerts | UnsetType | None = UNSET


def check(change: MoneyChange) -> None:
    """Raises AiConfigError, which names the field."""
    budgets, limits = change.budgets or [], change.limits or []
    for at, budget in enumerate(budgets):
        param = f"budgets[{at}]"
        parse_usd(budget.limit_usd)
        _check_subject(budget.scope, budget.subject, param)
        if (budget.action == "reroute") != (budget.reroute_to is not None):
            raise AiConfigError("rerouteTo goes with the action reroute", param=param)
    for at, limit in enumerate(limits):
        _check_subject(limit.scope, limit.subject, f"limits[{at}]")
        if limit.requests_per_minute is None and limit.tokens_per_minute is None:
            raise AiConfigError("it limits nothing", param=f"limits[{at}]")
    _check_once([(b.scope, b.subject, b.period, b.action) for b in budgets], "budgets")
    _check_once([(r.scope, r.subject) for r in limits], "limits")
    if change.prices:
        change.prices.fallback_price()
        for entry in change.prices.overrides:
            entry.price("override")


def statements(app_id: str, change: MoneyChange) -> list[Statement]:
    """What makes the change, in one transaction with whatever else is changed.

    Raises AiConfigError.
    """
    check(change)
    made = []
    if change.budgets is not UNSET:
        made.append(_put("put_budgets", app_id, [_budget_row(b) for b in change.budgets or []]))
    if change.limits is not UNSET:
        made.append(_put("put_limits", app_id, [_limit_row(r) for r in change.limits or []]))
    if change.prices is not UNSET:
        made.append(_put("put_prices", app_id, change.prices))
    if change.alerts is not UNSET:
        made.append(_put("put_alerts", app_id, change.alerts))
    return made


async def change_money(control: Executor, app_id: str, change: MoneyChange) -> MoneyConfig:
    """Raises AiConfigError, DatabaseError, DatabaseUnavailableError."""
    if changes := statements(app_id, change):
        await control.run(*changes)
    return await read_money(control, app_id)


async def read_money(
    control: Executor, app_id: str, *, default_plan: PlanName = "enterprise"
) -> MoneyConfig:
    """`default_plan` is told of an app that was given none, and has not called yet.

    Raises DatabaseError, DatabaseUnavailableError.
    """
    (result,) = await control.run(Statement(QUERIES["read"], (app_id.encode(),)))
    stored = _STORED.decode(result.value() or b"{}")
    return MoneyConfig(
        _plan(stored, default_plan),
        [_budget(row) for row in stored.budgets],
        stored.limits,
        stored.prices or PriceBook(),
        stored.alerts or Alerts(),
    )


async def set_plan(
    control: Executor, app_id: str, plan: str, *, overage_credits_max: int | None
) -> Plan:
    """For the operator. Raises AiConfigError, DatabaseError, DatabaseUnavailableError."""
    if plan not in PLANS:
        raise AiConfigError(f"the plan must be one of {', '.join(PLANS)}", param="plan")
    credit = None if overage_credits_max is None else str(overage_credits_max).encode()
    await control.run(Statement(QUERIES["set_plan"], (app_id.encode(), plan.encode(), credit)))
    return (await read_money(control, app_id)).plan


async def put_global_budget(control: Executor, nanos: int | None, period: str) -> None:
    """What all apps together may spend, but for calls with keys of their own; None: no limit.

    Raises DatabaseError, DatabaseUnavailableError.
    """
    budget = {"scope": "global", "period": period, "action": "block", "limit_nanos": nanos}
    data = msgspec.json.encode([] if nanos is None else [budget])
    await control.run(Statement(QUERIES["put_global_budget"], (data,)))


def decode_prices(data: bytes | str | None) -> PriceBook:
    """Of the column `prices` of butterbase.ai_config."""
    return PriceBook() if data is None else _PRICES.decode(data)


class _BudgetRow(Struct, frozen=True):
    scope: Literal["user", "key", "model", "app"]
    subject: str | None
    period: Period
    action: Literal["block", "reroute"]
    limit_nanos: int
    reroute_to: str | None
    alert_percents: list[int]


class _PlanRow(Struct, frozen=True):
    plan: PlanName
    overage_credits_max: int | None


class _PlanState(Struct, frozen=True):
    period: Period
    limit_nanos: int | None
    spent_nanos: int
    reserved_nanos: int


class _Stored(Struct, frozen=True):
    plan: _PlanRow | None = None
    plan_state: _PlanState | None = None
    budgets: list[_BudgetRow] = []
    limits: list[RateLimit] = []
    prices: PriceBook | None = None
    alerts: Alerts | None = None


_STORED = msgspec.json.Decoder(_Stored)
_PRICES = msgspec.json.Decoder(PriceBook)


def _check_subject(scope: str, subject: str | None, param: str) -> None:
    """Raises AiConfigError."""
    if subject is None:
        return
    if scope == "app":
        raise AiConfigError("the app itself has no subject", param=param)
    if scope in {"user", "key"}:
        try:
            is_id = str(UUID(subject)) == subject
        except ValueError:
            is_id = False
        if not is_id:
            raise AiConfigError(f"the subject must be the id of a {scope}", param=param)


def _check_once(keys: Sequence[tuple[object, ...]], param: str) -> None:
    """Raises AiConfigError."""
    if len(set(keys)) < len(keys):
        raise AiConfigError("two of them are for the same", param=param)


def _put(name: str, app_id: str, value: object) -> Statement:
    data = None if value is None else msgspec.json.encode(value)
    return Statement(QUERIES[name], (app_id.encode(), data))


def _budget_row(budget: Budget) -> _BudgetRow:
    return _BudgetRow(
        budget.scope,
        budget.subject,
        budget.period,
        budget.action,
        parse_usd(budget.limit_usd),
        budget.reroute_to,
        sorted(set(budget.alert_at)),
    )


def _budget(row: _BudgetRow) -> Budget:
    return Budget(
        row.scope,
        row.period,
        Decimal(format_usd(row.limit_nanos)),
        row.subject,
        row.action,
        row.reroute_to,
        row.alert_percents,
    )


def _limit_row(limit: RateLimit) -> dict[str, object]:
    return {
        "scope": limit.scope,
        "subject": limit.subject,
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
    }


def _plan(stored: _Stored, default: PlanName) -> Plan:
    if stored.plan is None or (state := stored.plan_state) is None:
        return Plan(default if stored.plan is None else stored.plan.plan)
    overage_nanos = max(0, state.spent_nanos - PRO_INCLUDED_NANOS)
    is_pro = stored.plan.plan == "pro"
    return Plan(
        stored.plan.plan,
        state.period,
        None if state.limit_nanos is None else format_usd(state.limit_nanos),
        format_usd(state.spent_nanos),
        format_usd(state.reserved_nanos),
        -(-overage_nanos // OVERAGE_CREDIT_NANOS) if is_pro else 0,
        stored.plan.overage_credits_max if is_pro else 0,
    )
