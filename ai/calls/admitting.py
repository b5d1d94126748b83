"""From a model's name to the targets that may serve the call: routes, prices, budgets, limits."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.call import Call, now
from butterbase.ai.config.configs import AppConfig
from butterbase.ai.errors import ModelUnknownError
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.money.catalog import Catalog, load_catalog
from butterbase.ai.money.errors import BudgetExceededError, RateLimitedError
from butterbase.ai.money.ledger import Admission, Admitted, Ledger, Rerouted, Verdict
from butterbase.ai.money.refusals import BudgetRefusal, shown
from butterbase.ai.routing.health import Health
from butterbase.ai.routing.planning import plan
from butterbase.ai.routing.resolution import Chain, Target
from butterbase.sql.claims import SERVICE_ROLE

TARIFF_COUNT_MAX = 1000
"""Apps whose tariff is kept."""

REROUTE_COUNT_MAX = 5
"""Budgets that send one call to a cheaper model, one after another."""


class Course(Struct, frozen=True):
    """A call that is admitted: what it may be served by."""

    chain: Chain
    targets: tuple[Target, ...]
    """In the order in which they are to be called."""
    tariff: Tariff


class Admissions:
    def __init__(
        self,
        ledger: Ledger,
        *,
        health: Health,
        life_s: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`life_s` is how long a call may last."""
        self._ledger = ledger
        self._health = health
        self._life_s = life_s
        self._chance = chance
        self._catalog: Catalog | None = None
        self._tariffs: dict[str, tuple[AppConfig, Tariff]] = {}
        self._tariffs_at = now()

    async def admit(self, call: Call, asked: Asked, app: AppConfig, chain: Chain) -> Course:
        """Raises BudgetExceededError, RateLimitedError, ConfigChangedError,
        DatabaseUnavailableError.
        """
        if self._catalog is None:
            self._catalog = await load_catalog()
        tariff = self._tariff(self._catalog, call.caller.app_id, app)
        waived: list[int] = []
        while True:
            bound = tariff.bound(asked, chain.all_targets)
            admission = Admission(
                app_id=call.caller.app_id,
                role=call.caller.role,
                user_id=call.caller.user_id,
                key_id=call.caller.key_id,
                request_id=call.caller.request_id,
                endpoint=call.endpoint,
                model=call.requested_model,
                models=list(dict.fromkeys(target.model for target in chain.all_targets)),
                nanos=bound.nanos,
                tokens=bound.tokens,
                life_s=self._life_s,
                is_byok=all(target.provider.is_byok for target in chain.all_targets),
                waived=waived,
                config_version=app.version,
            )
            try:
                verdict = await _unbroken(self._ledger.admit(call.id, admission))
            except (BudgetExceededError, RateLimitedError) as error:
                call.budget_action = "limit" if isinstance(error, RateLimitedError) else "block"
                raise
            if isinstance(verdict, Admitted):
                call.admitted = verdict
                chain = _without(chain, verdict.denied_models)
                targets = plan(
                    chain.targets,
                    chain.strategy,
                    health=self._health,
                    owner=call.caller.app_id,
                    now_s=asyncio.get_running_loop().time(),
                    cost=partial(tariff.cost, of=bound),
                    random=self._chance,
                    is_streamed=asked.is_streamed,
                )
                return Course(chain, targets, tariff)
            chain = _rerouted(call, app, verdict, waived)

    def _tariff(self, catalog: Catalog, app_id: str, app: AppConfig) -> Tariff:
        """The app's prices now. They change with a second at most, so one serves for its calls."""
        at = now().replace(microsecond=0)
        if at != self._tariffs_at or len(self._tariffs) >= TARIFF_COUNT_MAX:
            self._tariffs.clear()
            self._tariffs_at = at
        kept = self._tariffs.get(app_id)
        if kept is None or kept[0] is not app:
            kept = self._tariffs[app_id] = (app, Tariff(catalog, app, at))
        return kept[1]


def _rerouted(call: Call, app: AppConfig, verdict: Rerouted, waived: list[int]) -> Chain:
    """The chain of the cheaper model. Raises BudgetExceededError."""
    refusal = verdict.refusal
    waived.append(refusal.id)
    if len(waived) > REROUTE_COUNT_MAX:
        raise _exceeded(call, refusal)
    call.budget_action = "reroute"
    try:
        chain = app.table.resolve(refusal.reroute_to or "")
    except ModelUnknownError as error:
        raise _exceeded(call, refusal) from error
    only = call.only_model
    if only is not None and any(target.model != only for target in chain.all_targets):
        raise _exceeded(call, refusal)
    return chain


def _exceeded(call: Call, refusal: BudgetRefusal) -> BudgetExceededError:
    call.budget_action = "block"
    return BudgetExceededError(refusal, shown(refusal, is_service=call.caller.role == SERVICE_ROLE))


def _without(chain: Chain, denied: frozenset[str]) -> Chain:
    """Without the models whose own budgets have no room; never without all."""
    if not denied:
        return chain

    def allowed(targets: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(target for target in targets if target.model not in denied)

    left = replace(
        chain,
        targets=allowed(chain.targets),
        context_window=allowed(chain.context_window),
        content_policy=allowed(chain.content_policy),
    )
    return left if left.targets else replace(left, targets=left.all_targets)


async def _unbroken(admission: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Also for a caller who is cancelled meanwhile, however often: a call is recorded after it was
    admitted, and never before. What is reserved behind its event nobody would release."""
    task = asyncio.create_task(admission)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
