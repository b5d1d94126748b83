"""Who may call, within which budgets and limits; and what the answer's headers tell of a call."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Caller
from butterbase.ai.errors import AiStoppingError
from butterbase.ai.settings import AiSettings
from tests.ai.conftest import USER, Harness, running_gateway, sse_data, until
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    RATE_LIMITED,
    USAGE,
    Upstream,
    answer,
    chunk,
    stream,
)
from tests.postgres import Database

KEY_ID = "99999999-2222-4333-8444-555555555555"
SMALL = {"input": 1, "output": 1}
"""A dollar a million tokens: a token is a thousand nano-dollars."""


async def put(harness: Harness, **fields: Any) -> None:
    response = await harness.http.put(f"{harness.path}/ai/config", json=fields)
    assert response.status_code == 200, response.text


def budget(limit_usd: str, **fields: Any) -> dict[str, Any]:
    return {"scope": "app", "period": "lifetime", "limitUsd": limit_usd, **fields}


@pytest.fixture
async def priced(harness: Harness, upstream: Upstream) -> Harness:
    upstream.script = answer(200, COMPLETION)
    await put(harness, prices={"fallback": SMALL})
    return harness


# Anonymous callers


@pytest.mark.parametrize("path", ["chat/completions", "models"])
async def test_anonymous_callers_may_call_where_the_app_says_so(
    priced: Harness, upstream: Upstream, path: str
) -> None:
    async def ask() -> httpx.Response:
        method = "GET" if path == "models" else "POST"
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"x-test-role": "anon"}
        url = f"{priced.path}/{path}"
        return await priced.http.request(method, url, json=body, headers=headers)

    upstream.script = answer(200, {**COMPLETION, "data": []})
    assert (await ask()).status_code == 403
    await put(priced, allowAnonymous=True)
    assert (await ask()).status_code == 200
    await put(priced, allowAnonymous=None)
    assert (await ask()).status_code == 403


async def test_the_event_names_the_app_key_that_called(priced: Harness) -> None:
    priced.http.headers["x-test-key"] = KEY_ID
    await priced.chat()
    event = await priced.the_event()
    assert event["key_id"] == KEY_ID


# Headers


async def test_the_headers_of_an_answer_tell_what_happened(priced: Harness) -> None:
    await put(priced, budgets=[budget("1")])
    priced.http.headers["x-request-id"] = "r-9"
    headers = (await priced.chat(max_tokens=100)).headers
    told = {name: value for name, value in headers.items() if name.startswith("x-butterbase-")}
    assert told == {
        "x-butterbase-request-id": "r-9",
        "x-butterbase-provider": "127.0.0.1",
        "x-butterbase-model": "gpt-test",
        "x-butterbase-attempts": "1",
        "x-butterbase-cache": "off",
        "x-butterbase-cost-usd": "0.000029",
        "x-butterbase-budget-remaining-usd": "0.999971",
    }
    assert headers["x-request-id"] == "r-9"


async def test_the_headers_of_an_error_tell_what_happened_too(
    priced: Harness, upstream: Upstream
) -> None:
    await put(priced, budgets=[budget("1")])
    upstream.script = answer(429, RATE_LIMITED, {"retry-after": "20"})
    talk: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    asked = {"chat/completions": talk, "messages": talk, "responses": {"input": "Hi"}}
    for path, fields in asked.items():
        body = {"model": "gpt-test", "stream": True, **fields}
        response = await priced.http.post(f"{priced.path}/{path}", json=body)
        headers = response.headers
        assert (response.status_code, headers["retry-after"]) == (429, "20")
        told = {name: value for name, value in headers.items() if name.startswith("x-butterbase-")}
        left = told["x-butterbase-budget-remaining-usd"]
        assert told == {
            "x-butterbase-request-id": headers["x-request-id"],
            "x-butterbase-provider": "127.0.0.1",
            "x-butterbase-model": "gpt-test",
            "x-butterbase-attempts": "1",
            "x-butterbase-cache": "off",
            "x-butterbase-cost-usd": "0.00",
            "x-butterbase-budget-remaining-usd": left,
        }
        assert 0.99 < float(left) <= 1


async def test_a_refusal_of_ours_tells_that_nobody_was_asked(priced: Harness) -> None:
    await put(priced, budgets=[budget("0.0001", period="day")])
    headers = (await priced.chat(max_tokens=1000)).headers
    assert headers["x-butterbase-attempts"] == "0"
    assert headers["x-butterbase-cost-usd"] == "0.00"
    assert "x-butterbase-provider" not in headers


async def test_a_user_is_not_told_what_the_app_may_spend(priced: Harness) -> None:
    await put(priced, budgets=[budget("1")])
    priced.http.headers.update({"x-test-role": "authenticated", "x-test-user": USER})
    response = await priced.chat()
    assert response.status_code == 200
    assert "x-butterbase-budget-remaining-usd" not in response.headers


async def test_a_stream_begins_with_what_is_known_by_then(
    priced: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a", finish="stop"), DONE)
    headers = (await priced.chat(stream=True)).headers
    assert headers["x-butterbase-model"] == "gpt-test"
    assert "x-butterbase-cost-usd" not in headers


async def test_browsers_may_read_the_headers(priced: Harness) -> None:
    origin = {"origin": "https://app.test"}
    response = await priced.http.options(
        priced.chat_path,
        headers={
            **origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    response = await priced.http.get(priced.chat_path, headers=origin)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.headers["access-control-expose-headers"] == "*"


# Budgets and limits


async def test_a_call_beyond_its_budget_is_a_402_that_tells_which(
    priced: Harness, upstream: Upstream
) -> None:
    await put(priced, budgets=[budget("0.0001", period="day")])
    response = await priced.chat(max_tokens=1000)
    assert response.status_code == 402
    error = response.json()["error"]
    assert (error["code"], error["budget"]["scope"]) == ("ai_budget_exceeded", "app")
    assert error["budget"]["limitUsd"] == "0.0001"
    assert datetime.fromisoformat(error["budget"]["resetsAt"]) > datetime.now(UTC)
    assert response.headers["x-should-retry"] == "false"
    assert upstream.received == []
    event = await priced.the_event()
    assert (event["status"], event["http_status"]) == ("failed", 402)
    assert (event["budget_action"], event["cost_nanos"]) == ("block", 0)


async def test_a_call_of_anthropics_form_is_refused_in_that_form(
    priced: Harness, upstream: Upstream
) -> None:
    await put(priced, budgets=[budget("0.0001")])
    body = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "Hi"}]}
    response = await priced.http.post(f"{priced.path}/messages", json=body)
    assert (response.status_code, response.json()["type"]) == (402, "error")
    error = response.json()["error"]
    assert (error["type"], error["budget"]["scope"]) == ("billing_error", "app")


async def test_a_call_whose_length_nobody_limits_is_limited_where_money_is(
    priced: Harness, upstream: Upstream
) -> None:
    await priced.chat()
    assert "max_tokens" not in upstream.last.json()
    await put(priced, budgets=[budget("1")])
    await priced.chat()
    assert upstream.last.json()["max_tokens"] == 4096


async def test_a_budget_sends_calls_to_a_cheaper_model(priced: Harness, upstream: Upstream) -> None:
    await put(
        priced,
        prices={"fallback": SMALL, "overrides": [{"model": "dear", "input": 100, "output": 100}]},
        budgets=[budget("0.01", action="reroute", rerouteTo="cheap")],
        routes=[{"match": "cheap", "targets": [{"provider": "default", "model": "small"}]}],
    )
    response = await priced.chat(model="dear", max_tokens=1000)
    assert response.status_code == 200
    assert response.headers["x-butterbase-model"] == "small"
    assert response.headers["x-butterbase-budget-action"] == "reroute"
    assert upstream.last.json()["model"] == "small"
    event = await priced.the_event()
    assert (event["requested_model"], event["model"]) == ("dear", "small")
    assert (event["budget_action"], event["cost_nanos"]) == ("reroute", 29_000)


async def test_a_reroute_that_leads_nowhere_is_a_block(priced: Harness, upstream: Upstream) -> None:
    await put(
        priced,
        providers={
            "a": {"kind": "openai_compatible", "baseUrl": upstream.base_url},
            "b": {"kind": "openai_compatible", "baseUrl": upstream.base_url},
        },
        routes=[{"match": "*", "targets": [{"provider": "a"}]}],
        budgets=[
            budget("0.0001", action="reroute", rerouteTo="x"),
            budget("0.0001", period="day", action="reroute", rerouteTo="y"),
            budget("0.0001", period="month"),
        ],
    )
    assert (await priced.chat(max_tokens=1000)).status_code == 402


async def test_a_model_whose_own_budget_is_empty_is_passed_over(
    priced: Harness, upstream: Upstream
) -> None:
    targets = [{"provider": "default", "model": name} for name in ("first", "second")]
    await put(
        priced,
        routes=[{"match": "smart", "targets": targets}],
        budgets=[budget("0", scope="model", subject="first")],
    )
    response = await priced.chat(model="smart")
    assert (response.status_code, response.headers["x-butterbase-model"]) == (200, "second")


async def test_a_rate_limit_is_a_429_with_retry_after(priced: Harness, upstream: Upstream) -> None:
    await put(priced, limits=[{"scope": "app", "requestsPerMinute": 1}])
    assert (await priced.chat()).status_code == 200
    response = await priced.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (429, "ai_rate_limited")
    assert 0 < int(response.headers["retry-after"]) <= 60
    assert len(upstream.received) == 1
    assert {event["budget_action"] for event in await priced.the_events()} == {None, "limit"}


async def test_images_are_bounded_by_more_than_their_bytes(
    priced: Harness, upstream: Upstream
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}
    messages = [{"role": "user", "content": [image]}]
    await put(priced, budgets=[budget("1")])
    await priced.chat(messages=messages, max_tokens=10)
    event = await priced.the_event()
    assert 50_000_000 < event["reserved_nanos"] < 51_000_000


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
async def test_a_prompt_that_the_provider_keeps_is_bounded_by_what_a_model_can_read(
    control: Database, upstream: Upstream, name: str
) -> None:
    upstream.script = answer(200, {"status": "completed", "usage": None, "output": []})
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    async with running_gateway(control, settings) as harness:
        provider = {"kind": "openai", "baseUrl": upstream.base_url}
        await put(
            harness,
            prices={"fallback": SMALL},
            providers={"openai": provider},
            routes=[{"match": "*", "targets": [{"provider": "openai"}]}],
        )
        body = {"model": "unknown", "input": "Hi", name: "x_1", "max_output_tokens": 10}
        await harness.http.post(f"{harness.path}/responses", json=body)
        assert (await harness.the_event())["reserved_nanos"] >= 1_000_000_000


async def test_answers_in_the_background_are_refused(priced: Harness) -> None:
    body = {"model": "m", "input": "Hi", "background": True}
    response = await priced.http.post(f"{priced.path}/responses", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "background")


async def test_streamed_usage_is_charged_as_it_was_told(
    priced: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a"), chunk("b", finish="stop", usage=USAGE), DONE)
    response = await priced.chat(stream=True)
    assert sse_data(response.text)[-1] == "[DONE]"
    event = await priced.the_event()
    assert (event["cost_nanos"], event["price_source"]) == (29_000, "fallback")


@pytest.mark.parametrize("limit", [2**31, 2**62, 2**63 - 1, 10**25])
async def test_a_client_may_ask_for_more_than_there_are_numbers(
    harness: Harness, upstream: Upstream, limit: int
) -> None:
    """The provider says what is too much; our own books must not."""
    upstream.script = answer(200, COMPLETION)
    response = await harness.chat(max_tokens=limit, n=128)
    assert response.status_code == 200, response.text


# Who leaves while the call is being admitted


class Twice:
    """A client in this process."""

    has_left = False

    async def read(self) -> bytes:
        return b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'


async def test_a_call_that_is_cancelled_twice_is_recorded_behind_its_admission(
    priced: Harness,
) -> None:
    """As when its client leaves, and then the server stops. Else nobody released what it holds."""
    await put(priced, budgets=[budget("1")])
    caller = Caller(priced.app_id, "service_role", None, "r")
    holding = "select 1 from pg_locks where not granted and relation = %s::regclass"
    with psycopg.connect(priced.database.dsn) as locks:
        locks.execute("lock table butterbase.ai_reservations in exclusive mode")
        call = asyncio.create_task(priced.gateway.call(caller, Endpoint.CHAT, Twice()))
        await until(lambda: priced.execute(holding, "butterbase.ai_reservations"))
        for _ in range(2):
            call.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert not call.done()
        assert priced.gateway.call_count == 1
        locks.rollback()
    with pytest.raises(AiStoppingError):
        await call
    assert (await priced.the_event())["status"] == "cancelled"
    held = (
        "select count(*) from butterbase.ai_reservations r join butterbase.events using (call_id)"
        " where r.app_id = %s"
    )
    assert priced.execute(held, priced.app_id) == [(1,)], "its event releases it"
