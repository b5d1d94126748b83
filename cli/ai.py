"""`butterbase ai`: what the operator says of money, and whether the books are right."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from butterbase.ai.money.amounts import format_usd, parse_usd
from butterbase.ai.money.config import PLANS, Plan, put_global_budget, read_money, set_plan
from butterbase.ai.money.reconcile import reconcile
from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor


async def plan(cluster: Cluster, app_id: str, *, to: str | None, overage: str) -> str:
    """The app's plan, changed before where `to` names one.

    `overage` is a number of credits, or `any`. Raises SettingError.
    """
    if to is not None and to not in PLANS:
        raise SettingError(f"the plan must be one of {', '.join(PLANS)}")
    if overage != "any" and not re.fullmatch(r"[0-9]{1,6}", overage):
        raise SettingError("--overage is a number of credits, or any")
    await find_app(cluster, app_id)
    async with _control(cluster, LoginRole.SERVICE) as control:
        if to is None:
            return _shown((await read_money(control, app_id)).plan)
        credit_count = None if overage == "any" else int(overage)
        return _shown(await set_plan(control, app_id, to, overage_credits_max=credit_count))


async def budget(cluster: Cluster, *, usd: str, period: str) -> str:
    """Set what all apps together may spend; `none` takes the limit away. Raises AmountError."""
    nanos = None if usd == "none" else parse_usd(usd)
    async with _control(cluster, LoginRole.SERVICE) as control:
        await put_global_budget(control, nanos, period)
    return "no limit" if nanos is None else f"{format_usd(nanos)} USD a {period}"


async def check(cluster: Cluster) -> list[str]:
    """A line for each sum that is not that of its events."""
    async with _control(cluster, LoginRole.STREAM) as control:
        return [msgspec.json.encode(difference).decode() for difference in await reconcile(control)]


def _shown(of: Plan) -> str:
    if of.period is None:
        return of.plan
    span = "in all" if of.period == "lifetime" else f"this {of.period}"
    limit = "without a limit" if of.limit_usd is None else f"of {of.limit_usd}"
    spent = f"{of.plan}: {of.spent_usd} USD {limit} spent {span}"
    return f"{spent}, {of.overage_credits} credits of overage" if of.overage_credits else spent


@asynccontextmanager
async def _control(cluster: Cluster, role: LoginRole) -> AsyncIterator[Executor]:
    control = Executor(cluster.dsn(role, cluster.control_database), connection_count_max=1)
    try:
        yield control
    finally:
        await control.close()
