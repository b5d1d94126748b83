"""`GET ai/usage`: sums of the projection's rows, for whoever may see them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tests.ai.conftest import OTHER_USER, USER, Harness

ROWS = [
    ("2026-01-01", USER, "chat/completions", "p", "a", 3, 1, 30, 10),
    ("2026-01-01", OTHER_USER, "chat/completions", "p", "a", 1, 0, 5, 5),
    ("2026-01-02", USER, "embeddings", "p", "e", 2, 0, 100, 0),
    ("2026-01-31", None, "chat/completions", "q", "b", 1, 0, 1, 1),
    ("2026-02-01", None, "chat/completions", "q", "b", 50, 0, 50, 50),
]


@pytest.fixture(autouse=True)
def rows(harness: Harness) -> None:
    for row in ROWS:
        harness.execute(
            "insert into butterbase.usage values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            harness.app_id, *row,
        )  # fmt: skip


async def usage(harness: Harness, **params: str) -> Any:
    days = {"startDate": "2026-01-01", "endDate": "2026-01-31"}
    return (await harness.http.get(f"{harness.path}/ai/usage", params=days | params)).json()


def sums(requests: int, failures: int, prompt: int, completion: int) -> dict[str, object]:
    return {
        "requests": requests,
        "failures": failures,
        "promptTokens": prompt,
        "completionTokens": completion,
        "totalTokens": prompt + completion,
        "cachedTokens": 0,
        "cacheWriteTokens": 0,
        "reasoningTokens": 0,
        "costUsd": "0.00",
        "cacheHits": 0,
        "savedUsd": "0.00",
    }


async def test_the_service_role_sees_all_of_the_days_by_model(harness: Harness) -> None:
    assert await usage(harness) == {
        "startDate": "2026-01-01",
        "endDate": "2026-01-31",
        "groupBy": "model",
        "totals": sums(7, 1, 136, 16),
        "groups": [
            {"key": "e", **sums(2, 0, 100, 0)},
            {"key": "a", **sums(4, 1, 35, 15)},
            {"key": "b", **sums(1, 0, 1, 1)},
        ],
    }


@pytest.mark.parametrize(
    ("group_by", "keys"),
    [
        ("user", [USER, OTHER_USER, None]),
        ("endpoint", ["embeddings", "chat/completions"]),
        ("day", ["2026-01-01", "2026-01-02", "2026-01-31"]),
    ],
)
async def test_groups(harness: Harness, group_by: str, keys: list[str | None]) -> None:
    report = await usage(harness, groupBy=group_by)
    assert [group["key"] for group in report["groups"]] == keys
    assert report["totals"] == sums(7, 1, 136, 16)


async def test_a_user_sees_what_is_theirs(harness: Harness) -> None:
    harness.http.headers.update({"x-test-role": "authenticated", "x-test-user": USER})
    report = await usage(harness, groupBy="user")
    assert report["totals"] == sums(5, 1, 130, 10)
    assert [group["key"] for group in report["groups"]] == [USER]


async def test_another_app_sees_none_of_it(harness: Harness) -> None:
    response = await harness.http.get(
        "/v1/other/ai/usage", params={"startDate": "2026-01-01", "endDate": "2026-01-31"}
    )
    assert response.json()["totals"] == sums(0, 0, 0, 0)
    assert response.json()["groups"] == []


@pytest.mark.parametrize(
    ("role", "user", "code"),
    [
        ("anon", "", "anonymous_ai_denied"),
        ("authenticated", "", "ai_role_denied"),
    ],
)
async def test_a_caller_without_a_user_is_refused(
    harness: Harness, role: str, user: str, code: str
) -> None:
    harness.http.headers.update({"x-test-role": role, "x-test-user": user})
    response = await harness.http.get(f"{harness.path}/ai/usage")
    assert (response.status_code, response.json()["error"]["code"]) == (403, code)


async def test_without_dates_the_last_thirty_days_are_meant(harness: Harness) -> None:
    today = datetime.now(UTC).date()
    report = (await harness.http.get(f"{harness.path}/ai/usage")).json()
    end = date.fromisoformat(report["endDate"])
    assert today <= end <= today + timedelta(days=1)
    assert end - date.fromisoformat(report["startDate"]) == timedelta(days=29)


async def test_a_last_day_with_no_days_before_it_is_refused(harness: Harness) -> None:
    answer = await harness.http.get(f"{harness.path}/ai/usage", params={"endDate": "0001-01-01"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "endDate")


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"startDate": "yesterday"}, "startDate"),
        ({"endDate": "2026-02-30"}, "endDate"),
        ({"startDate": "2026-02-01"}, "startDate"),
        ({"startDate": "2020-01-01"}, "startDate"),
        ({"endDate": "0001-01-01", "startDate": ""}, "startDate"),
        ({"groupBy": "password"}, "groupBy"),
    ],
)
async def test_a_wrong_parameter_is_named(
    harness: Harness, params: dict[str, str], param: str
) -> None:
    report = await usage(harness, **params)
    assert report["error"]["param"] == param


async def test_money_and_what_the_caches_saved_are_summed_by_key(harness: Harness) -> None:
    for day, cost_nanos in (("2026-01-03", 1), ("2026-01-04", 2_500_000_000)):
        harness.execute(
            "insert into butterbase.usage (app_id, day, key_id, endpoint, provider, model,"
            " requests, failures, prompt_tokens, completion_tokens, cached_tokens,"
            " cache_write_tokens, reasoning_tokens, cost_nanos, cache_hits, saved_nanos)"
            " values (%s, %s, %s, 'chat/completions', 'p', 'a', 1, 0, 9, 8, 7, 6, 5, %s, 3, 2)",
            harness.app_id, day, OTHER_USER, cost_nanos,
        )  # fmt: skip
    report = await usage(harness, groupBy="key")
    assert report["groups"][1] == {
        **sums(2, 0, 18, 16),
        "key": OTHER_USER,
        "cachedTokens": 14,
        "cacheWriteTokens": 12,
        "reasoningTokens": 10,
        "costUsd": "2.500000001",
        "cacheHits": 6,
        "savedUsd": "0.000000004",
    }


async def test_what_functions_have_asked_is_told_by_function(harness: Harness) -> None:
    for function, requests in (("send-mail", 2), ("other", 1), ("send-mail", 4)):
        harness.execute(
            "insert into butterbase.usage (app_id, day, user_id, function, endpoint, provider,"
            " model, requests, failures, prompt_tokens, completion_tokens)"
            " values (%s, '2026-01-05', gen_random_uuid(), %s, 'chat/completions', 'p', 'a',"
            " %s, 0, 1000, 0)",
            harness.app_id, function, requests,
        )  # fmt: skip
    report = await usage(harness, groupBy="function")
    assert [(g["key"], g["requests"]) for g in report["groups"]] == [
        ("send-mail", 6),
        ("other", 1),
        (None, 7),
    ]
