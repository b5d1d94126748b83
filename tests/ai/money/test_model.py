"""The ledger against a model of it in memory, through any order of what can happen."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from psycopg import AsyncConnection

from butterbase.ai.money.errors import BudgetExceededError
from butterbase.ai.money.ledger import Admitted, Ledger, Rerouted
from butterbase.projections.sweeper import Liveness, Sweeper
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import (
    ADMISSION,
    KEY,
    OTHER_USER,
    SERVICE,
    STREAM,
    USER,
    Books,
    as_role,
)
from tests.postgres import Database

MODELS = ("m", "n")
SUBJECTS = {"user": (str(USER), str(OTHER_USER)), "key": (str(KEY),), "model": MODELS}


class Budget(NamedTuple):
    scope: str
    subject: str | None
    period: str
    action: str


@st.composite
def budgets(draw: st.DrawFn) -> dict[Budget, int]:
    """Budgets of an app, with their limits."""
    found = {}
    for _ in range(draw(st.integers(0, 4))):
        scope = draw(st.sampled_from(("user", "key", "model", "app")))
        subject = draw(st.none() | st.sampled_from(SUBJECTS[scope])) if scope != "app" else None
        period = draw(st.sampled_from(("day", "month", "lifetime")))
        action = draw(st.sampled_from(("block", "block", "reroute")))
        found[Budget(scope, subject, period, action)] = draw(st.integers(0, 40))
    return found


@dataclass
class Call:
    app_id: str
    user_id: UUID
    key_id: UUID | None
    is_byok: bool
    at: datetime
    nanos: int
    holds: list[tuple[int, str, date]] = field(default_factory=list)
    model: str = ""
    cost: int = 0


class Known(NamedTuple):
    number: int
    """Another one each time that it is made."""
    app_id: str | None
    budget: Budget
    limit: int


def start(period: str, at: datetime) -> date:
    return {"day": at.date(), "month": at.date().replace(day=1)}.get(period, date(1970, 1, 1))


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self, database: Database, runner: asyncio.Runner) -> None:
        super().__init__()
        self.run = runner.run
        self.books = self.run(self._open(database))
        self.books.execute(
            "truncate butterbase.usage, butterbase.ai_budgets, butterbase.ai_budget_periods,"
            " butterbase.ai_reservations, butterbase.ai_workers"
        )
        self.books.projected = {
            id_ for (id_,) in self.books.execute("select id from butterbase.events")
        }
        self.now = datetime.now(UTC)
        self.known: list[Known] = []
        self.numbers = iter(range(10**6))
        self.running: dict[UUID, Call] = {}
        self.recorded: dict[UUID, Call] = {}
        self.projected: list[Call] = []

    async def _open(self, database: Database) -> Books:
        executor = Executor(as_role(database, SERVICE), connection_count_max=1)
        return Books(database, executor, Ledger(executor, default_plan="enterprise", pause_s=0))

    def teardown(self) -> None:
        self.run(self.books.executor.close())

    # What applies to a call, said in other words than the database's

    def applying(self, call: Call, models: tuple[str, ...]) -> list[tuple[Known, str, date]]:
        subjects = {
            "user": (str(call.user_id),),
            "key": () if call.key_id is None else (str(call.key_id),),
            "model": models,
        }
        found = []
        for known in self.known:
            budget = known.budget
            if known.app_id not in {None, call.app_id}:
                continue
            if call.is_byok and known.app_id is None:
                continue
            for subject in subjects.get(budget.scope, ("",)):
                own = budget._replace(subject=subject)
                has_own = any(o.app_id == known.app_id and o.budget == own for o in self.known)
                if budget.subject == subject or (budget.subject is None and not has_own):
                    found.append((known, subject, start(budget.period, call.at)))
        return found

    def sums(self) -> tuple[dict[Any, int], dict[Any, int]]:
        """Spent and reserved, by budget, subject and period."""
        spent, reserved = defaultdict[Any, int](int), defaultdict[Any, int](int)
        for call in self.projected:
            for known, subject, starts_on in self.applying(call, (call.model,)):
                spent[known.number, subject, starts_on] += call.cost
        numbers = {known.number for known in self.known}
        for call in (*self.running.values(), *self.recorded.values()):
            for hold in call.holds:
                if hold[0] in numbers:
                    reserved[hold] += call.nanos
        return spent, reserved

    # What happens

    @rule(found=budgets(), app_id=st.sampled_from(("main", "main", "b")))
    def set_budgets(self, found: dict[Budget, int], app_id: str) -> None:
        self._set(app_id, found)

    @rule(limit=st.none() | st.integers(0, 60), period=st.sampled_from(("day", "lifetime")))
    def set_global_budget(self, limit: int | None, period: str) -> None:
        found = {} if limit is None else {Budget("global", None, period, "block"): limit}
        self._set(None, found)

    def _set(self, app_id: str | None, found: dict[Budget, int]) -> None:
        before = {k.budget: k.number for k in self.known if k.app_id == app_id}
        self.known = [k for k in self.known if k.app_id != app_id]
        for budget, limit in found.items():
            number = before.get(budget, -1)
            number = next(self.numbers) if number == -1 else number
            self.known.append(Known(number, app_id, budget, limit))
        self.books.put_budgets(
            *(
                {
                    **budget._asdict(),
                    "limit_nanos": limit,
                    "reroute_to": "n" if budget.action == "reroute" else None,
                }
                for budget, limit in found.items()
            ),
            app_id=app_id,
        )

    @rule(
        app_id=st.sampled_from(("main", "main", "b")),
        user_id=st.sampled_from((USER, OTHER_USER)),
        key_id=st.sampled_from((None, KEY)),
        models=st.sampled_from((("m",), ("n",), ("m", "n"))),
        nanos=st.integers(0, 15),
        is_byok=st.booleans(),
    )
    def admit(
        self,
        app_id: str,
        user_id: UUID,
        key_id: UUID | None,
        models: tuple[str, ...],
        nanos: int,
        is_byok: bool,
    ) -> None:
        call = Call(app_id, user_id, key_id, is_byok, self.now, nanos)
        spent, reserved = self.sums()
        applying = self.applying(call, models)
        full = [
            (known, subject)
            for known, subject, starts_on in applying
            if known.limit
            - spent[known.number, subject, starts_on]
            - reserved[known.number, subject, starts_on]
            < nanos
        ]
        denied = {subject for known, subject in full if known.budget.scope == "model"}
        refusing = [known for known, _ in full if known.budget.scope != "model"]
        if denied == set(models):
            refusing += [known for known, _ in full if known.budget.scope == "model"]
        call_id = uuid4()
        admission = replace(
            ADMISSION,
            app_id=app_id,
            user_id=user_id,
            key_id=key_id,
            models=models,
            nanos=nanos,
            is_byok=is_byok,
        )
        if refusing and all(known.budget.action == "block" for known in refusing):
            with pytest.raises(BudgetExceededError):
                self.run(self.books.ledger.admit(call_id, admission, now=self.now))
            return
        verdict = self.run(self.books.ledger.admit(call_id, admission, now=self.now))
        if refusing:
            assert isinstance(verdict, Rerouted)
            lowest = min(k.limit for k in refusing if k.budget.action == "reroute")
            assert verdict.refusal.limit_nanos == lowest
            return
        assert isinstance(verdict, Admitted)
        assert verdict.denied_models == denied
        call.holds = [
            (known.number, subject, starts_on)
            for known, subject, starts_on in applying
            if known.budget.scope != "model" or subject not in denied
        ]
        call.model = next(model for model in models if model not in denied)
        self.running[call_id] = call

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.integers(0, 120))
    def end(self, data: st.DataObject, share: int) -> None:
        """Also of calls that cost more than their bound."""
        call_id = data.draw(st.sampled_from(list(self.running)))
        call = self.running.pop(call_id)
        call.cost = call.nanos * share // 100
        self.recorded[call_id] = call
        self.run(self._settle(call_id, call))

    async def _settle(self, call_id: UUID, call: Call) -> None:
        await self.books.settle(
            call_id,
            call.cost,
            app_id=call.app_id,
            user_id=call.user_id,
            key_id=call.key_id,
            model=call.model,
            is_byok=call.is_byok,
            admitted_at=call.at,
        )

    @rule(count=st.integers(1, 5))
    def project(self, count: int) -> None:
        self.run(self.books.project(count))
        for call_id in list(self.recorded)[:count]:
            self.projected.append(self.recorded.pop(call_id))

    @precondition(lambda self: self.running)
    @rule()
    def lose_the_worker(self) -> None:
        """All its calls are lost, and another worker goes on."""
        assert self.run(self._sweep()) == len(self.running)
        lost = self.books.execute(
            "select call_id from butterbase.events where data ->> 'status' = 'lost'"
            " and call_id = any(%s) order by id",
            list(self.running),
        )
        for (call_id,) in lost:
            self.recorded[call_id] = self.running.pop(call_id)
        self.books.ledger = Ledger(self.books.executor, default_plan="enterprise", pause_s=0)

    async def _sweep(self) -> int:
        now_s = iter((0.0, 30.0))
        sweeper = Sweeper("", liveness=Liveness(lost_after_s=30.0), clock=lambda: next(now_s))
        dsn = as_role(self.books.database, STREAM)
        async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
            return await sweeper.sweep(conn) + await sweeper.sweep(conn)

    @rule(hours=st.integers(1, 40 * 24))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def make_the_sums_anew(self) -> None:
        """Of what is recorded: it is projected by that."""
        self.run(self._rebuild())
        self.projected += self.recorded.values()
        self.recorded.clear()

    async def _rebuild(self) -> None:
        # Of the events of examples before this one nothing is to be counted.
        rows = self.books.execute("select id from butterbase.events")
        await self.books.project()
        assert self.books.projected >= {id_ for (id_,) in rows}
        async with await AsyncConnection.connect(as_role(self.books.database, STREAM)) as conn:
            await conn.execute("select butterbase.ai_recount()")

    @invariant()
    def the_sums_are_the_models(self) -> None:
        spent, reserved = self.sums()
        rows = self.books.execute(
            "select b.app_id, b.scope, b.subject, b.period, b.action, p.subject, p.starts_on,"
            " p.spent_nanos, p.reserved_nanos"
            " from butterbase.ai_budget_periods p"
            " join butterbase.ai_budgets b on b.id = p.budget_id"
        )
        numbers = {(k.app_id, k.budget): k.number for k in self.known}
        found = {
            (numbers[app_id, Budget(*budget)], subject, starts_on): (nanos, held)
            for app_id, *budget, subject, starts_on, nanos, held in rows
        }
        for key in spent.keys() | reserved.keys() | found.keys():
            assert found.get(key, (0, 0)) == (spent[key], reserved[key]), key


def test_the_ledger_is_what_its_model_is(money: Database) -> None:
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            lambda: LedgerMachine(money, runner),  # type: ignore[arg-type]  # any that makes one
            settings=settings(
                max_examples=20,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
