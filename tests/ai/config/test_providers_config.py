"""Providers and routes in `ai/config`."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.ai.conftest import Harness, running_gateway
from tests.ai.upstream import COMPLETION, Upstream, answer
from tests.postgres import Database

KEY = "sk-live-0123456789abcd"
PROVIDER = {"kind": "openai", "apiKey": KEY}
ROUTE = {"match": "smart", "targets": [{"provider": "a", "model": "m"}]}


async def put(harness: Harness, **fields: Any) -> httpx.Response:
    return await harness.http.put(f"{harness.path}/ai/config", json=fields)


async def get(harness: Harness) -> Any:
    return (await harness.http.get(f"{harness.path}/ai/config")).json()


async def test_a_provider_is_read_back_with_a_hint_of_its_key(harness: Harness) -> None:
    response = await put(harness, providers={"a": PROVIDER, "b": {"kind": "anthropic"}})
    shown = response.json()["providers"]
    assert shown == {
        "a": {
            "kind": "openai",
            "baseUrl": "https://api.openai.com/v1",
            "apiKey": "sk-…abcd",
            "headers": {},
        },
        "b": {
            "kind": "anthropic",
            "baseUrl": "https://api.anthropic.com/v1",
            "apiKey": None,
            "headers": {},
        },
    }
    assert (await get(harness))["providers"] == shown
    assert "0123456789" not in response.text
    [(sealed,)] = harness.execute(
        "select api_key_encrypted from butterbase.ai_providers where app_id = %s and name = 'a'",
        harness.app_id,
    )
    assert KEY.encode() not in sealed


async def test_a_key_stays_while_its_provider_stays_where_it_is(harness: Harness) -> None:
    await put(harness, providers={"a": PROVIDER})
    changed = {"kind": "openai", "headers": {"OpenAI-Organization": "org-1"}}
    shown = (await put(harness, providers={"a": changed})).json()["providers"]["a"]
    assert (shown["apiKey"], shown["headers"]) == ("sk-…abcd", {"OpenAI-Organization": "org-1"})
    removed = {**changed, "apiKey": None}
    assert (await put(harness, providers={"a": removed})).json()["providers"]["a"]["apiKey"] is None


@pytest.mark.parametrize(
    "elsewhere",
    [{"kind": "openai", "baseUrl": "https://evil.test/v1"}, {"kind": "openrouter"}],
)
async def test_a_stored_key_is_not_sent_elsewhere(
    harness: Harness, elsewhere: dict[str, Any]
) -> None:
    await put(harness, providers={"a": PROVIDER})
    response = await put(harness, providers={"a": elsewhere})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "providers.a.apiKey"
    moved = await put(harness, providers={"a": {**elsewhere, "apiKey": "sk-new-key"}})
    assert moved.status_code == 200


async def test_providers_replace_those_before(harness: Harness) -> None:
    await put(harness, providers={"a": PROVIDER, "b": PROVIDER})
    assert set((await put(harness, providers={"b": PROVIDER})).json()["providers"]) == {"b"}
    assert (await put(harness, providers=None)).json()["providers"] == {}


async def test_routes_are_read_back_as_they_are(harness: Harness) -> None:
    route = {
        "match": "smart",
        "targets": [
            {"provider": "a", "model": "m", "weight": 3, "timeouts": {"firstToken": 2.5}},
            {"provider": "default", "price": {"input": "0.5", "output": "2"}},
        ],
        "strategy": "weighted",
        "retries": {"count": 2, "delayMax": 4.0},
        "fallbacks": {"contextWindow": [{"provider": "a", "model": "long"}]},
    }
    response = await put(harness, providers={"a": PROVIDER}, routes=[route])
    assert response.json()["routes"] == [route | {"cache": None, "guards": None}]
    assert (await get(harness))["routes"] == response.json()["routes"]
    assert (await put(harness, routes=None)).json()["routes"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"providers": {"a": {"kind": "unknown"}}}, "providers"),
        ({"providers": {"a": {"kind": "openai_compatible"}}}, "providers.a.baseUrl"),
        ({"providers": {"a": {"kind": "openai", "baseUrl": "ftp://x"}}}, "providers.a.baseUrl"),
        ({"providers": {"default": {"kind": "openai"}}}, "providers.default"),
        ({"providers": {"a b": {"kind": "openai"}}}, "providers"),
        ({"providers": {"a": {"kind": "openai", "apiKey": "short"}}}, "providers"),
        ({"providers": {"a": {"kind": "openai", "headers": {"Authorization": "x"}}}},
         "providers.a.headers"),
        ({"providers": {"a": {"kind": "openai", "headers": {"X-A": "b\r\nX-C: d"}}}}, "providers"),
        ({"providers": {"a": {"kind": "openai", "x": 1}}}, "providers"),
        ({"routes": [ROUTE]}, "routes[0].targets[0].provider"),
        ({"routes": [{"match": "m", "targets": []}]}, "routes[0].targets"),
        ({"routes": [{"match": "m", "targets": [{"provider": "default", "model": "*"}]}]},
         "routes[0].targets[0].model"),
        ({"routes": [{"match": "m", "targets": [{"provider": "default"}], "strategy": "x"}]},
         "routes[0].strategy"),
        ({"routes": [{"match": "m", "targets": [{"provider": "default"}]}] * 2}, "routes"),
        ({"routes": [{"match": "m", "targets": [{"provider": "default", "weight": -1}]}]},
         "routes[0].targets[0].weight"),
        ({"routes": [{"match": "m", "targets": [{"provider": "default"}],
                      "fallbacks": {"contextWindow": [{"provider": "gone"}]}}]},
         "routes[0].fallbacks.contextWindow[0].provider"),
    ],
)  # fmt: skip
async def test_a_wrong_value_changes_nothing(
    harness: Harness, fields: dict[str, Any], param: str | None
) -> None:
    before = await get(harness)
    response = await put(harness, defaultModel="changed", **fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] in {"ai_config_invalid", "ai_amount_invalid"}
    assert error["param"] == param
    assert await get(harness) == before


async def test_a_provider_that_a_route_names_stays(harness: Harness) -> None:
    await put(harness, providers={"a": PROVIDER}, routes=[ROUTE])
    response = await put(harness, providers={})
    assert response.json()["error"]["param"] == "routes[0].targets[0].provider"


async def test_a_price_that_cannot_be_kept_is_refused(harness: Harness) -> None:
    target = {"provider": "default", "price": {"input": "0.00000000001", "output": 1}}
    response = await put(harness, routes=[{"match": "m", "targets": [target]}])
    assert response.json()["error"]["code"] == "ai_amount_invalid"


async def test_changes_at_the_same_time_keep_what_each_sets(harness: Harness) -> None:
    changes: list[dict[str, Any]] = [
        {"defaultModel": "a"},
        {"maxTokensPerRequest": 5},
        {"allowAnonymous": True},
        {"providers": {"a": PROVIDER}},
        {"budgets": [{"scope": "app", "period": "day", "limitUsd": "1"}]},
    ]
    responses = await asyncio.gather(*[put(harness, **change) for change in changes])
    assert {response.status_code for response in responses} == {200}
    config = await get(harness)
    assert (config["defaultModel"], config["maxTokensPerRequest"]) == ("a", 5)
    assert config["allowAnonymous"] is True
    assert len(config["providers"]) == len(config["budgets"]) == 1


async def test_a_change_holds_for_the_next_call(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    await harness.chat()
    await put(harness, allowedModels=[])
    assert (await harness.chat()).status_code == 403


@pytest.mark.parametrize(
    ("before", "after"), [({}, {"allowedModels": []}), ({"allowAnonymous": True}, {})]
)
async def test_what_is_withdrawn_is_refused_by_all_workers_at_once(
    harness: Harness,
    control: Database,
    upstream: Upstream,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    upstream.script = answer(200, COMPLETION)
    await put(harness, **before)
    if before:
        harness.http.headers["x-test-role"] = "anon"
    assert (await harness.chat()).status_code == 200
    settings = harness.gateway.settings
    async with running_gateway(control, settings, app_id=harness.app_id) as other:
        await put(other, **after or {"allowAnonymous": False})
    assert (await harness.chat()).status_code == 403
    assert len(upstream.received) == 1


async def test_a_call_is_admitted_by_the_configuration_that_holds_then(
    harness: Harness, control: Database, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    settings = harness.gateway.settings
    await harness.chat()
    async with running_gateway(control, settings, app_id=harness.app_id) as other:
        route = {"match": "gpt-test", "targets": [{"provider": "default", "model": "moved"}]}
        await put(other, routes=[route])
    await harness.chat()
    assert [request.json()["model"] for request in upstream.received] == ["gpt-test", "moved"]


async def test_routes_hide_nothing_from_allowed_models(
    harness: Harness, upstream: Upstream
) -> None:
    """What is allowed is what clients may name."""
    upstream.script = answer(200, COMPLETION)
    route = {"match": "smart", "targets": [{"provider": "default", "model": "secret"}]}
    await put(harness, routes=[route], allowedModels=["smart"])
    assert (await harness.chat(model="smart")).status_code == 200
    assert upstream.last.json()["model"] == "secret"
    assert (await harness.chat(model="secret")).status_code == 403
