"""Admissions and settlements, on a real Postgres."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection

from butterbase.ai.money.errors import BudgetExceededError, RateLimitedError
from butterbase.ai.money.ledger import Admitted, Ledger, Rerouted
from butterbase.ai.money.refusals import BudgetRefusal
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.ai.money.conftest import (
    ADMISSION,
    EVENT_ROWS,
    KEY,
    NANO,
    OTHER_USER,
    SERVICE,
    STREAM,
    USER,
    WAITING,
    Books,
    as_role,
    commit_of,
)
from tests.waiting import until

NOON = datetime(2100, 3, 31, 12, tzinfo=UTC)


async def refusal(books: Books, **changes: Any) -> BudgetRefusal:
    with pytest.raises(BudgetExceededError) as refused:
        await books.admit(**changes)
    return refused.value.refusal


def sums(books: Books) -> list[tuple[int, int]]:
    return [row[3:] for row in books.periods()]


async def test_a_call_of_an_app_without_budgets_is_admitted(books: Books) -> None:
    call_id, admitted = await books.admit()
    assert (admitted.reserved_nanos, admitted.remaining_nanos) == (NANO, None)
    await books.settle(call_id, 3, admitted_at=admitted.at)
    await books.project()
    assert books.execute("select count(*) from butterbase.ai_reservations") == [(0,)]
    assert books.execute("select cost_nanos from butterbase.usage") == [(3,)]


async def test_a_reservation_becomes_what_the_call_did_cost(books: Books) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO}, {"scope": "user", "limit_nanos": 5 * NANO})
    call_id, admitted = await books.admit()
    assert admitted.remaining_nanos == 4 * NANO
    assert books.periods() == [
        ("app", "", "1970-01-01", 0, NANO),
        ("user", str(USER), "1970-01-01", 0, NANO),
    ]
    await books.settle(call_id, 3, admitted_at=admitted.at)
    await books.project()
    assert sums(books) == [(3, 0), (3, 0)]


async def test_a_budget_without_room_refuses_and_none_is_touched(books: Books) -> None:
    books.put_budgets(
        {"limit_nanos": 10 * NANO},
        {"scope": "user", "limit_nanos": NANO - 1, "period": "month"},
    )
    refused = await refusal(books, now=NOON)
    assert (refused.scope, refused.limit_nanos) == ("user", NANO - 1)
    assert refused.resets_at == datetime(2100, 4, 1, tzinfo=UTC)
    assert sums(books) == [(0, 0), (0, 0)]
    assert books.execute("select count(*) from butterbase.ai_reservations") == [(0,)]


async def test_what_resets_last_is_told(books: Books) -> None:
    for_nothing: list[dict[str, object]] = [
        {"limit_nanos": 0, "period": period} for period in ("month", "lifetime", "day")
    ]
    books.put_budgets(*for_nothing)
    assert (await refusal(books)).period == "lifetime"


async def test_a_call_counts_in_the_period_of_its_admission_whenever_it_ends(books: Books) -> None:
    books.put_budgets({"limit_nanos": NANO, "period": "day"})
    before_midnight = NOON.replace(hour=23, minute=59)
    call_id, admitted = await books.admit(now=before_midnight)
    next_day = before_midnight + timedelta(minutes=2)
    await books.admit(now=next_day)  # the new day has all of its room
    await books.settle(call_id, 7, admitted_at=admitted.at)
    await books.project()
    assert [row[2:] for row in books.periods()] == [
        ("2100-03-31", 7, 0),
        ("2100-04-01", 0, NANO),
    ]
    assert books.execute("select day::text, cost_nanos from butterbase.usage") == [
        ("2100-03-31", 7)
    ]


# Models


async def test_a_model_whose_budget_is_empty_is_denied_while_another_is_not(books: Books) -> None:
    books.put_budgets({"scope": "model", "subject": "n", "limit_nanos": 0})
    _, admitted = await books.admit(models=("m", "n"))
    assert admitted.denied_models == {"n"}
    assert sums(books) == [(0, 0)]
    refused = await refusal(books, models=("n",))
    assert (refused.scope, refused.subject) == ("model", "n")


async def test_names_of_models_may_have_any_characters(books: Books) -> None:
    odd = ('a"b', "c\\d", "{e,f}", "g h", "null", "é\0")
    books.put_budgets({"scope": "model", "limit_nanos": NANO})
    await books.admit(models=odd)
    assert {row[1] for row in books.periods()} == {*odd[:-1], "é"}


async def test_a_budget_that_reroutes_is_waived_for_the_cheaper_model(books: Books) -> None:
    books.put_budgets(
        {"limit_nanos": 10, "action": "reroute", "reroute_to": "cheap"},
        {"limit_nanos": 5, "action": "reroute", "reroute_to": "small", "period": "day"},
        {"limit_nanos": NANO, "period": "day"},
    )
    first = await books.ledger.admit(uuid4(), ADMISSION)
    assert isinstance(first, Rerouted)
    assert first.refusal.reroute_to == "small"
    waived = msgspec.structs.replace(ADMISSION, waived=(first.refusal.id,))
    second = await books.ledger.admit(uuid4(), waived)
    assert isinstance(second, Rerouted)
    assert second.refusal.reroute_to == "cheap"
    both = (first.refusal.id, second.refusal.id)
    _, admitted = await books.admit(waived=both, models=("cheap",))
    assert admitted.remaining_nanos == 0
    # The budget that blocks is not waived by that.
    assert (await refusal(books, waived=both)).action == "block"


# Whose budget


async def test_a_budget_of_ones_own_takes_the_place_of_everybodys(books: Books) -> None:
    books.put_budgets(
        {"scope": "user", "limit_nanos": 1},
        {"scope": "user", "subject": str(USER), "limit_nanos": NANO},
    )
    await books.admit()
    assert (await refusal(books, user_id=OTHER_USER)).subject == str(OTHER_USER)


async def test_a_call_without_a_user_has_no_users_budget(books: Books) -> None:
    books.put_budgets({"scope": "user", "limit_nanos": 0}, {"scope": "key", "limit_nanos": 0})
    await books.admit(user_id=None)
    assert (await refusal(books, user_id=None, key_id=KEY)).scope == "key"


async def test_one_apps_spending_is_nothing_to_another_but_for_the_global_budget(
    books: Books,
) -> None:
    books.put_budgets({"limit_nanos": 0})
    await books.admit(app_id="b")
    books.put_budgets({"scope": "global", "limit_nanos": NANO}, app_id=None)
    assert (await refusal(books, app_id="b", nanos=NANO + 1)).scope == "global"


async def test_calls_with_keys_of_an_own_are_nothing_to_the_operators_budgets(
    books: Books,
) -> None:
    books.put_budgets({"scope": "global", "limit_nanos": 0}, app_id=None)
    books.execute("select butterbase.ai_set_plan('main', 'free', 0, false)")
    books.put_budgets({"limit_nanos": 5 * NANO})
    call_id, admitted = await books.admit(is_byok=True)
    await books.settle(call_id, 3, is_byok=True, admitted_at=admitted.at)
    await books.project()
    assert [(row[0], row[3]) for row in books.periods()] == [("app", 3)]
    assert books.execute("select cost_nanos, byok_cost_nanos from butterbase.usage") == [(3, 3)]


# What a budget has spent when it is made


async def test_a_new_budget_has_spent_what_its_period_did_cost(books: Books) -> None:
    for user_id, cost in ((USER, 3), (OTHER_USER, 4)):
        call_id, admitted = await books.admit(user_id=user_id)
        await books.settle(call_id, cost, user_id=user_id, admitted_at=admitted.at)
    await books.project()
    books.put_budgets({"limit_nanos": 10}, {"scope": "user", "limit_nanos": 10, "period": "month"})
    assert [(row[1], row[3]) for row in books.periods()] == [
        ("", 7),
        (str(OTHER_USER), 4),
        (str(USER), 3),
    ]
    assert (await refusal(books, nanos=4)).spent_nanos == 7


async def test_what_counts_in_a_budget_of_ones_own_counts_in_everybodys_no_more(
    books: Books,
) -> None:
    everybodys: dict[str, object] = {"scope": "user", "limit_nanos": NANO}
    own = everybodys | {"subject": str(USER)}
    books.put_budgets(everybodys)
    call_id, admitted = await books.admit(nanos=5)
    await books.settle(call_id, 5, admitted_at=admitted.at)
    await books.project()
    books.put_budgets(everybodys, own)
    assert sums(books) == [(0, 0), (5, 0)]
    books.put_budgets(everybodys)
    assert sums(books) == [(5, 0)]


async def test_a_budget_that_is_made_while_the_projection_commits_misses_nothing(
    books: Books,
) -> None:
    call_id, admitted = await books.admit()
    await books.settle(call_id, 5, admitted_at=admitted.at)
    (event,) = books.execute(EVENT_ROWS)
    async with await AsyncConnection.connect(as_role(books.database, STREAM)) as conn:
        await books.projection.apply(conn, [commit_of(event)])
        making = asyncio.create_task(asyncio.to_thread(books.put_budgets, {"limit_nanos": NANO}))
        await until(lambda: bool(books.execute(WAITING, books.database.name)))
    await making
    assert sums(books) == [(5, 0)]


async def test_a_changed_budget_keeps_what_it_has_reserved(books: Books) -> None:
    books.put_budgets({"limit_nanos": NANO})
    await books.admit()
    books.put_budgets({"limit_nanos": 2 * NANO}, {"limit_nanos": 9, "period": "day"})
    assert sums(books) == [(0, NANO)]
    assert (await refusal(books, nanos=NANO + 1)).reserved_nanos in {0, NANO}


async def test_a_budget_that_is_taken_away_refuses_nothing(books: Books) -> None:
    books.put_budgets({"limit_nanos": NANO})
    call_id, admitted = await books.admit()
    books.put_budgets()
    await books.admit(nanos=100 * NANO)
    await books.settle(call_id, 3, admitted_at=admitted.at)
    await books.project()
    assert books.periods() == []


# Limits


def put_limit(
    books: Books,
    scope: str,
    *,
    subject: str | None = None,
    requests: int | None = None,
    tokens: int | None = None,
) -> None:
    books.execute(
        "insert into butterbase.ai_limits"
        " (app_id, scope, subject, requests_per_minute, tokens_per_minute)"
        " values ('main', %s, %s, %s, %s)",
        scope, subject, requests, tokens,
    )  # fmt: skip


async def limited(books: Books, **changes: Any) -> RateLimitedError:
    with pytest.raises(RateLimitedError) as refused:
        await books.admit(**changes)
    return refused.value


async def test_requests_beyond_a_minutes_number_are_refused(books: Books) -> None:
    put_limit(books, "user", requests=2)
    for _ in range(2):
        await books.admit(now=NOON)
    refused = await limited(books, now=NOON)
    assert refused.retry_after_s == 30
    assert refused.headers == {"retry-after": "30"}
    assert "2 requests a minute of this user" in refused.message
    await books.admit(now=NOON, user_id=OTHER_USER)
    assert (await limited(books, now=NOON + timedelta(seconds=29))).retry_after_s == 1
    await books.admit(now=NOON + timedelta(seconds=30))


async def test_a_limit_is_one_for_all_workers(books: Books, money: Any) -> None:
    put_limit(books, "app", requests=10)
    executors = [Executor(as_role(money, SERVICE)) for _ in range(4)]
    ledgers = [Ledger(executor, default_plan="enterprise") for executor in executors]
    verdicts = await asyncio.gather(
        *(ledgers[n % 4].admit(uuid4(), ADMISSION, now=NOON) for n in range(40)),
        return_exceptions=True,
    )
    for executor in executors:
        await executor.close()
    assert [isinstance(v, Admitted) for v in verdicts].count(True) == 10
    assert [isinstance(v, RateLimitedError) for v in verdicts].count(True) == 30


async def test_of_its_tokens_a_call_gives_back_what_it_did_not_use(books: Books) -> None:
    put_limit(books, "app", tokens=600)
    call_id, admitted = await books.admit(now=NOON, tokens=600)
    assert (await limited(books, now=NOON, tokens=1)).retry_after_s == pytest.approx(0.1)
    await books.settle(call_id, 0, total_tokens=100, admitted_at=admitted.at)
    await books.project()
    await books.admit(now=NOON, tokens=500)
    assert (await limited(books, now=NOON, tokens=100)).refusal.kind == "tokens"


async def test_a_bound_beyond_a_full_bucket_is_admitted_and_paid_for_afterwards(
    books: Books,
) -> None:
    put_limit(books, "app", tokens=600)
    call_id, admitted = await books.admit(now=NOON, tokens=100_000)
    await books.settle(call_id, 0, total_tokens=1200, admitted_at=admitted.at)
    await books.project()
    assert (await limited(books, now=NOON, tokens=0)).retry_after_s == 60


async def test_who_is_refused_by_a_budget_loses_nothing_of_a_limit(books: Books) -> None:
    put_limit(books, "app", requests=1)
    books.put_budgets({"limit_nanos": NANO})
    await refusal(books, now=NOON, nanos=2 * NANO)
    await books.admit(now=NOON)


async def test_limits_of_models_are_by_the_model_that_is_asked_for(books: Books) -> None:
    put_limit(books, "model", subject="alias", requests=1)
    await books.admit(now=NOON, model="alias", models=("m",))
    await books.admit(now=NOON, model="m", models=("m",))
    assert (await limited(books, now=NOON, model="alias")).refusal.subject == "alias"


# Alerts


def alerts(books: Books) -> list[tuple[str, int, str]]:
    return books.execute(
        "select data ->> 'startsOn', (data ->> 'percent')::int, data ->> 'subject'"
        " from butterbase.events where type = 'ai.budget.alert' order by id"
    )


async def test_a_threshold_is_told_once_in_each_period(books: Books) -> None:
    books.put_budgets({"limit_nanos": 100, "period": "day", "alert_percents": [50, 80, 100]})
    for now in (NOON, NOON + timedelta(days=1)):
        for cost in (49, 1, 40, 10):
            call_id, admitted = await books.admit(now=now, nanos=cost)
            await books.settle(call_id, cost, admitted_at=admitted.at)
            await books.project()
    assert [alert[:2] for alert in alerts(books)] == [
        ("2100-03-31", 50),
        ("2100-03-31", 80),
        ("2100-03-31", 100),
        ("2100-04-01", 50),
        ("2100-04-01", 80),
        ("2100-04-01", 100),
    ]


async def test_a_call_that_passes_two_thresholds_is_two_alerts(books: Books) -> None:
    budget = {"scope": "user", "limit_nanos": 10, "alert_percents": [10, 90]}
    books.put_budgets(budget)
    call_id, admitted = await books.admit(nanos=10)
    await books.settle(call_id, 9, admitted_at=admitted.at)
    await books.project()
    assert alerts(books) == [("1970-01-01", 10, str(USER)), ("1970-01-01", 90, str(USER))]


# What is lost on the way


class Losing(Executor):
    """Its answers are lost as often as it is told; what was run was run."""

    lost_count = 0
    is_away = False

    async def run(self, *statements: Statement, **options: Any) -> list[Result]:
        if self.is_away:
            raise DatabaseUnavailableError
        results = await super().run(*statements, **options)
        if self.lost_count:
            self.lost_count -= 1
            raise DatabaseUnavailableError
        return results


@pytest.fixture
async def losing(books: Books, money: Any) -> Any:
    executor = Losing(as_role(money, SERVICE))
    books.ledger = Ledger(executor, default_plan="enterprise")
    await books.admit(nanos=0)  # the app has its plan
    yield executor
    await executor.close()


async def test_an_admission_whose_answer_is_lost_holds_its_money_once(
    books: Books, losing: Losing
) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    losing.lost_count = 1
    call_id, admitted = await books.admit(now=NOON)
    assert (admitted.at, admitted.remaining_nanos) == (NOON, None)
    assert sums(books) == [(0, NANO)]
    await books.settle(call_id, 3, admitted_at=admitted.at)
    await books.project()
    assert sums(books) == [(3, 0)]


async def test_an_event_whose_answer_is_lost_is_there_once(books: Books, losing: Losing) -> None:
    call_id, _ = await books.admit()
    losing.lost_count = 1
    await books.settle(call_id, 3)
    assert books.execute("select count(*) from butterbase.events") == [(1,)]


async def test_an_event_that_cannot_be_written_is_written_when_the_database_is_back(
    books: Books, losing: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.ai.money.ledger.WRITE_TIMEOUT_S", 0.2)
    call_id, admitted = await books.admit()
    losing.is_away = True
    with pytest.raises(AssertionError):
        await books.settle(call_id, 3, admitted_at=admitted.at)
    assert books.execute("select count(*) from butterbase.events") == [(0,)]
    losing.is_away = False
    living = asyncio.create_task(books.ledger.run())
    await until(lambda: bool(books.execute("select 1 from butterbase.events")))
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    await books.project()
    assert books.execute("select cost_nanos from butterbase.usage") == [(3,)]


async def test_a_database_that_is_away_for_a_moment_delays_an_event(
    books: Books, losing: Losing
) -> None:
    call_id, _ = await books.admit()
    losing.is_away = True
    asyncio.get_running_loop().call_later(0.3, setattr, losing, "is_away", False)
    await books.settle(call_id, 3)
    assert books.execute("select count(*) from butterbase.events") == [(1,)]


async def test_an_event_that_is_refused_holds_up_no_other(
    books: Books, losing: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.ai.money.ledger.WRITE_TIMEOUT_S", 0.2)
    losing.is_away = True
    # One that Postgres refuses, and one that cannot even be written as JSON.
    for app_id in ("\0", "\ud800", "main"):
        with pytest.raises(AssertionError):
            await books.settle(uuid4(), 3, app_id=app_id)
    losing.is_away = False
    await books.ledger.write_waiting()
    await books.ledger.write_waiting()
    assert books.execute("select app_id from butterbase.events") == [("main",)]


async def test_an_event_that_cannot_be_read_releases_its_reservation(books: Books) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    call_id, _ = await books.admit()
    books.execute(
        "insert into butterbase.events (app_id, type, call_id, data)"
        " values ('main', 'ai.call', %s, '{}')",
        call_id,
    )
    await books.project()
    assert sums(books) == [(0, 0)]


async def test_what_is_out_of_bounds_is_recorded_within_them(books: Books) -> None:
    call_id, _ = await books.admit()
    await books.settle(
        call_id,
        2 * 10**15,
        model="m" * 300 + "\0",
        requested_model="\0",
        prompt_tokens=-1,
        completion_tokens=2**62,
    )
    await books.project()
    assert books.execute(
        "select length(model), prompt_tokens, completion_tokens, cost_nanos from butterbase.usage"
    ) == [(200, 0, 10**9, 10**15)]


# Privileges


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (SERVICE, "update butterbase.ai_budget_periods set spent_nanos = 0"),
        (SERVICE, "delete from butterbase.ai_budgets"),
        (SERVICE, "delete from butterbase.ai_reservations"),
        (SERVICE, "select butterbase.ai_recount()"),
        (SERVICE, "delete from butterbase.usage"),
        (STREAM, "update butterbase.ai_budgets set limit_nanos = 0"),
        (STREAM, "select butterbase.ai_set_plan('main', 'free', 0, false)"),
        ("anon", "select butterbase.ai_beat(gen_random_uuid())"),
    ],
)
async def test_roles_may_do_no_more_than_they_must(books: Books, role: str, statement: str) -> None:
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(as_role(books.database, role)) as conn, refused:
        conn.execute(statement.encode())


async def test_other_faults_of_the_database_are_told(books: Books) -> None:
    with pytest.raises(DatabaseError):
        await books.admit(nanos=-1)
