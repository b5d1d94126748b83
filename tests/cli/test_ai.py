"""`butterbase ai`: plans, the operator's budget, and whether the books are right."""

import asyncio
import json

import psycopg
import pytest

from butterbase.cli import ai
from butterbase.cli.__main__ import parser
from butterbase.sql.errors import SettingError
from tests.installation import Installation


def plan(installation: Installation, to: str | None = None, overage: str = "0") -> str:
    return asyncio.run(ai.plan(installation.cluster, "main", to=to, overage=overage))


def test_a_plan_is_given_and_shown(installation: Installation) -> None:
    assert plan(installation) == "enterprise"
    assert plan(installation, "free") == "free: 0.00 USD of 0.10 spent in all"
    assert plan(installation, "pro", "5") == "pro: 0.00 USD of 10.50 spent this month"
    assert plan(installation, "pro", "any") == "pro: 0.00 USD without a limit spent this month"
    assert plan(installation) == plan(installation, "pro", "any")


def test_what_is_no_plan_app_or_number_is_refused(installation: Installation) -> None:
    for to, overage in (("gold", "0"), ("pro", "-1"), ("pro", "many")):
        with pytest.raises(SettingError):
            plan(installation, to, overage)
    with pytest.raises(SettingError):
        asyncio.run(ai.plan(installation.cluster, "nobody", to="free", overage="0"))


def test_the_operators_budget_is_set_and_taken_away(installation: Installation) -> None:
    def budget(usd: str) -> str:
        return asyncio.run(ai.budget(installation.cluster, usd=usd, period="day"))

    def kept() -> list[tuple[object, ...]]:
        with psycopg.connect(installation.control.dsn) as conn:
            return conn.execute("select period, limit_nanos from butterbase.ai_budgets").fetchall()

    assert budget("2.50") == "2.50 USD a day"
    assert kept() == [("day", 2_500_000_000)]
    assert budget("none") == "no limit"
    assert kept() == []


def test_books_that_are_right_and_books_that_are_not(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.ai.money.reconcile.PAUSE_S", 0.0)
    assert asyncio.run(ai.check(installation.cluster)) == []
    with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into butterbase.usage (app_id, day, endpoint, provider, model, requests,"
            " failures, prompt_tokens, completion_tokens, cost_nanos)"
            " values ('main', current_date, 'e', 'p', 'm', 1, 0, 1, 1, 7)"
        )
    (line,) = asyncio.run(ai.check(installation.cluster))
    assert json.loads(line)["kept_nanos"] == 7


def test_the_commands_arguments() -> None:
    arguments = parser().parse_args(["ai", "plan", "--app", "a", "pro", "--overage", "any"])
    assert (arguments.app, arguments.plan, arguments.overage) == ("a", "pro", "any")
    assert parser().parse_args(["ai", "budget", "5"]).period == "month"
