"""Budgets, limits, prices and plans as an app and the operator set them."""

from typing import Any

import msgspec
import pytest

from butterbase.ai.errors import AiConfigError
from butterbase.ai.money.config import (
    MoneyChange,
    MoneyConfig,
    Plan,
    change_money,
    put_global_budget,
    read_money,
    set_plan,
)
from butterbase.ai.money.errors import BudgetExceededError
from butterbase.ai.money.ledger import Ledger
from tests.ai.money.conftest import NANO, USER, Books

WHOLE: dict[str, Any] = {
    "budgets": [
        {"scope": "app", "period": "month", "limitUsd": "20.00", "alertAt": [50, 100]},
        {"scope": "user", "period": "day", "limitUsd": "0.25"},
        {
            "scope": "user",
            "subject": str(USER),
            "period": "day",
            "limitUsd": "1.00",
            "action": "reroute",
            "rerouteTo": "small",
        },
    ],
    "limits": [{"scope": "key", "requestsPerMinute": 60, "tokensPerMinute": 100000}],
    "prices": {
        "overrides": [{"model": "llama-*", "input": "0.05", "output": "0.1"}],
        "fallback": {"input": "1", "output": "2", "cachedInput": "0.5"},
    },
}


def change(**fields: Any) -> MoneyChange:
    return msgspec.convert(fields, MoneyChange, strict=False)


def builtins(config: MoneyConfig) -> Any:
    return msgspec.json.decode(msgspec.json.encode(config))


async def test_what_is_set_is_read_back(books: Books) -> None:
    read = builtins(await change_money(books.executor, "main", change(**WHOLE)))
    assert read["plan"]["plan"] == "enterprise"
    budget: dict[str, object] = {
        "subject": None,
        "action": "block",
        "rerouteTo": None,
        "alertAt": [],
    }
    assert read["budgets"] == [budget | given for given in WHOLE["budgets"]]
    assert read["limits"] == [{"subject": None} | WHOLE["limits"][0]]
    assert read["prices"]["fallback"] == WHOLE["prices"]["fallback"]
    assert builtins(await read_money(books.executor, "b"))["budgets"] == []


async def test_what_is_left_out_stays_and_null_unsets(books: Books) -> None:
    await change_money(books.executor, "main", change(**WHOLE))
    kept = builtins(await change_money(books.executor, "main", change(budgets=None)))
    assert kept["budgets"] == []
    assert len(kept["limits"]) == 1
    bare = await change_money(books.executor, "main", change(limits=None, prices=None))
    assert builtins(bare) == builtins(await read_money(books.executor, "b"))


async def test_a_plan_and_the_operators_budget_are_not_the_apps_to_change(books: Books) -> None:
    await set_plan(books.executor, "main", "free", overage_credits_max=0)
    await put_global_budget(books.executor, NANO, "day")
    await change_money(books.executor, "main", change(budgets=None))
    assert [row[0] for row in books.execute("select scope from butterbase.ai_budgets")] == [
        "plan",
        "global",
    ]
    with pytest.raises(msgspec.ValidationError):
        change(budgets=[{"scope": "plan", "period": "month", "limitUsd": 1}])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"budgets": [{"scope": "app", "period": "day", "limitUsd": -1}]}, None),
        ({"budgets": [{"scope": "app", "period": "day", "limitUsd": "0.0000000001"}]}, None),
        (
            {"budgets": [{"scope": "app", "period": "day", "limitUsd": 1, "action": "reroute"}]},
            "budgets[0]",
        ),
        (
            {"budgets": [{"scope": "app", "period": "day", "limitUsd": 1, "subject": "x"}]},
            "budgets[0]",
        ),
        (
            {"budgets": [{"scope": "user", "period": "day", "limitUsd": 1, "subject": "ann"}]},
            "budgets[0]",
        ),
        (
            {"budgets": [{"scope": "app", "period": "day", "limitUsd": n} for n in (1, 2)]},
            "budgets",
        ),
        ({"limits": [{"scope": "app"}]}, "limits[0]"),
        ({"limits": [{"scope": "app", "requestsPerMinute": n} for n in (1, 2)]}, "limits"),
        ({"prices": {"fallback": {"input": -1, "output": 0}}}, None),
        ({"prices": {"overrides": [{"model": "m", "input": 1, "output": "NaN"}]}}, None),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_changed(
    books: Books, fields: dict[str, Any], param: str | None
) -> None:
    await change_money(books.executor, "main", change(**WHOLE))
    with pytest.raises(AiConfigError) as refused:
        await change_money(books.executor, "main", change(**fields))
    assert refused.value.param == param
    assert len((await read_money(books.executor, "main")).budgets) == 3


# Plans


async def spend(books: Books, nanos: int) -> None:
    call_id, admitted = await books.admit(nanos=nanos)
    await books.settle(call_id, nanos, admitted_at=admitted.at)
    await books.project()


async def test_free_is_ten_cents_in_all(books: Books) -> None:
    await set_plan(books.executor, "main", "free", overage_credits_max=0)
    await spend(books, NANO // 10 - 1)
    await books.admit(nanos=1)
    with pytest.raises(BudgetExceededError, match="the app's plan has no room in all"):
        await books.admit(nanos=1)


async def test_pro_is_ten_dollars_a_month_and_then_the_credits_that_are_allowed(
    books: Books,
) -> None:
    await set_plan(books.executor, "main", "pro", overage_credits_max=2)
    await spend(books, 10 * NANO)
    assert (await read_money(books.executor, "main")).plan.overage_credits == 0
    await spend(books, NANO // 10 + 1)
    assert (await read_money(books.executor, "main")).plan == Plan(
        "pro", "month", "10.20", "10.100000001", "0.00", 2, 2
    )
    with pytest.raises(BudgetExceededError):
        await books.admit(nanos=NANO // 10)
    plan = await set_plan(books.executor, "main", "pro", overage_credits_max=None)
    assert plan == Plan("pro", "month", None, "10.100000001", "0.00", 2, None)
    await books.admit(nanos=1000 * NANO)


async def test_a_plan_that_is_changed_knows_what_was_spent(books: Books) -> None:
    await spend(books, NANO)
    assert (
        await set_plan(books.executor, "main", "free", overage_credits_max=0)
    ).spent_usd == "1.00"
    with pytest.raises(BudgetExceededError):
        await books.admit(nanos=1)
    await set_plan(books.executor, "main", "enterprise", overage_credits_max=0)
    await books.admit(nanos=10**6 * NANO)


async def test_an_app_without_a_plan_has_the_settings(books: Books) -> None:
    books.ledger = Ledger(books.executor, default_plan="free")
    with pytest.raises(BudgetExceededError):
        await books.admit()
    books.ledger = Ledger(books.executor, default_plan="enterprise")
    await books.admit()
    await set_plan(books.executor, "main", "pro", overage_credits_max=0)
    books.ledger = Ledger(books.executor, default_plan="free")
    await books.admit()
    with pytest.raises(AiConfigError):
        await set_plan(books.executor, "main", "gold", overage_credits_max=0)


async def test_an_app_that_is_not_there_gets_no_plan(books: Books) -> None:
    assert await set_plan(books.executor, "nobody", "free", overage_credits_max=0) == Plan()
