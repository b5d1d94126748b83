"""Whole answers: what passes, in both directions, and the event that tells of it."""

import json
from collections.abc import AsyncIterator

import pytest

from butterbase.ai.settings import AiSettings
from tests.ai.conftest import USER, Harness, running_gateway
from tests.ai.upstream import COMPLETION, EMBEDDINGS, Upstream, answer
from tests.postgres import Database


async def test_a_completion_passes_byte_for_byte(harness: Harness, upstream: Upstream) -> None:
    body = json.dumps(COMPLETION, indent=3).encode()
    upstream.script = answer(200, body)
    response = await harness.chat()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.content == body


async def test_an_ok_call_is_one_event_with_the_reported_usage(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    await harness.chat()
    event = await harness.the_event()
    assert 0 <= event.pop("latency_ms") < 10_000
    assert event.pop("admitted_at")
    assert event.pop("reserved_nanos") > event["cost_nanos"] > 0
    assert event == {
        "endpoint": "chat/completions",
        "provider": "127.0.0.1",
        "model": "gpt-test",
        "stream": False,
        "status": "ok",
        "http_status": 200,
        "error_code": None,
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "cached_tokens": 16,
        "reasoning_tokens": 4,
        "usage_source": "reported",
        "first_token_ms": None,
        "requested_model": "gpt-test",
        "key_id": None,
        "function": None,
        "index": None,
        "attempts": 1,
        "cache_write_tokens": 0,
        # 19 tokens at 5 and 10 at 25 dollars a million: nobody knows the price of this model.
        "cost_nanos": 345_000,
        "price_source": "fallback",
        "is_byok": False,
        "cache": "off",
        "cache_similarity": None,
        "saved_nanos": 0,
        "guards": {},
        "budget_action": None,
        "step": 1,
        "is_late": False,
    }


@pytest.mark.parametrize(
    ("role", "subject", "user_id"),
    [
        ("authenticated", USER, USER),
        ("service_role", "", None),
        ("service_role", "auth0|5", None),
        # Another issuer's subjects are no UUIDs; each has one of its own.
        ("authenticated", "auth0|5", "d1e60b4e-d35b-5538-bd1a-b3fa2c2aa17e"),
    ],
)
async def test_the_event_names_the_caller(
    harness: Harness, upstream: Upstream, role: str, subject: str, user_id: str | None
) -> None:
    upstream.script = answer(200, COMPLETION)
    harness.http.headers.update(
        {"x-test-role": role, "x-test-user": subject, "x-request-id": "r-7"}
    )
    await harness.chat()
    rows = harness.execute(
        "select type, role, user_id::text, request_id from butterbase.events where app_id = %s",
        harness.app_id,
    )
    assert rows == [("ai.call", role, user_id, "r-7")]


async def test_users_of_other_issuers_are_told_apart(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    budget = {"scope": "user", "period": "day", "limitUsd": "0.11"}
    config = {"budgets": [budget], "maxTokensPerRequest": 4000}
    await harness.http.put(f"{harness.path}/ai/config", json=config)
    statuses = []
    for subject in ("auth0|5", "auth0|5", "auth0|6"):
        headers = {"x-test-role": "authenticated", "x-test-user": subject}
        harness.http.headers.update(headers)
        statuses.append((await harness.chat()).status_code)
    assert statuses == [200, 402, 200]


@pytest.mark.parametrize("path", ["chat/completions", "models"])
async def test_a_users_token_that_names_nobody_is_nobodys(
    harness: Harness, upstream: Upstream, path: str
) -> None:
    """Else no budget and no limit of users would hold for it."""
    upstream.script = answer(200, {**COMPLETION, "data": []})
    config = f"{harness.path}/ai/config"
    method = "GET" if path == "models" else "POST"
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]}
    for allows, status in ((False, 403), (True, 200)):
        await harness.http.put(config, json={"allowAnonymous": allows})
        response = await harness.http.request(
            method,
            f"{harness.path}/{path}",
            json=body if method == "POST" else None,
            headers={"x-test-role": "authenticated", "x-test-user": ""},
        )
        assert response.status_code == status, response.text


async def test_unknown_fields_and_long_numbers_reach_the_provider_unchanged(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    body = (
        b'{"messages": [{"role":"user","content":"\xc3\xa9","x":{"y":[1]}}], "model": "gpt-test",'
        b' "temperature": 0.10000000000000000001, "seed": 123456789012345678901, "top_k": null}'
    )
    await harness.http.post(harness.chat_path, content=body)
    assert upstream.last.body == (
        b'{"messages":[{"role":"user","content":"\xc3\xa9","x":{"y":[1]}}],"model":"gpt-test",'
        b'"temperature":0.10000000000000000001,"seed":123456789012345678901,"top_k":null}'
    )


async def test_only_the_body_and_our_key_go_to_the_provider(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION, {"set-cookie": "session=of-someone"})
    harness.http.headers.update(
        {"authorization": "Bearer caller", "cookie": "a=b", "x-secret": "c"}
    )
    await harness.chat()
    await harness.chat()
    for request in upstream.received:
        assert request.path == "/v1/chat/completions"
        assert request.headers.pop("authorization") == "Bearer sk-operator"
        assert sorted(request.headers) == [
            "accept", "accept-encoding", "content-length", "content-type", "host", "user-agent",
        ]  # fmt: skip
    assert upstream.received[0].connection == upstream.received[1].connection


async def test_a_request_without_a_model_gets_the_default(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    await harness.chat(model=None)
    assert upstream.last.json()["model"] == "default-model"
    assert (await harness.the_event())["model"] == "default-model"


async def test_embeddings_pass_with_their_usage(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, EMBEDDINGS)
    body = {"model": "embed-test", "input": ["a", "b"], "encoding_format": "base64"}
    response = await harness.http.post(f"{harness.path}/embeddings", json=body)
    assert response.json() == EMBEDDINGS
    assert upstream.last.path == "/v1/embeddings"
    assert upstream.last.json() == body
    event = await harness.the_event()
    assert event["endpoint"] == "embeddings"
    assert (event["prompt_tokens"], event["completion_tokens"], event["total_tokens"]) == (8, 0, 8)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": 1e300}, "no"])
async def test_usage_that_is_none_is_estimated(
    harness: Harness, upstream: Upstream, usage: object
) -> None:
    upstream.script = answer(200, {**COMPLETION, "usage": usage})
    assert (await harness.chat()).status_code == 200
    event = await harness.the_event()
    assert (event["status"], event["usage_source"]) == ("ok", "estimated")
    # `Hi` and a message around it; `Hello!`.
    assert (event["prompt_tokens"], event["completion_tokens"]) == (5, 2)
    assert event["cost_nanos"] == 75_000


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
async def test_anonymous_callers_are_refused(
    harness: Harness, upstream: Upstream, path: str
) -> None:
    response = await harness.http.post(
        f"{harness.path}/{path}",
        json={"messages": [1], "input": "a"},
        headers={"x-test-role": "anon"},
    )
    assert response.status_code == 403
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("anonymous_ai_denied", "permission_error")
    assert error["hint"]
    assert upstream.received == []
    assert harness.events() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"m": "\\ud800"}', None),
        (b'{"model": "m"}', "messages"),
        (b'{"model": "m", "messages": []}', "messages"),
        (b'{"model": "m", "messages": "Hi"}', "messages"),
        (b'{"model": 5, "messages": [1]}', "model"),
        (b'{"model": "a\\u0000b", "messages": [1]}', "model"),
        (b'{"model": "' + b"m" * 201 + b'", "messages": [1]}', "model"),
        (b'{"model": "m", "messages": [1], "stream": "yes"}', "stream"),
        (b'{"model": "m", "messages": [1], "max_tokens": 0}', "max_tokens"),
        (b'{"model": "m", "messages": [1], "stream_options": 1}', "stream_options"),
        (b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
async def test_a_bad_request_is_refused_and_recorded(
    harness: Harness, upstream: Upstream, body: bytes, param: str | None
) -> None:
    response = await harness.http.post(harness.chat_path, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "ai_request_invalid")
    assert error["param"] == param
    assert upstream.received == []
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("failed", 400)
    assert event["error_code"] == "ai_request_invalid"


async def test_a_body_above_the_limit_is_refused(control: Database, upstream: Upstream) -> None:
    settings = AiSettings(ai_base_url=upstream.base_url, ai_request_bytes_max=1024)
    async with running_gateway(control, settings) as harness:
        announced = await harness.chat(messages=["x" * 2000])

        async def unannounced() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        sent = await harness.http.post(harness.chat_path, content=unannounced())
        for response in (announced, sent):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "body_too_large"
        assert len(await harness.the_events()) == 2


async def test_without_a_provider_the_hint_tells_how_to_set_one(control: Database) -> None:
    async with running_gateway(control, AiSettings()) as harness:
        response = await harness.chat()
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "ai_provider_missing"
        assert "BUTTERBASE_AI_BASE_URL" in error["hint"]
        assert "PUT ai/config" in error["hint"]
        assert response.headers["x-should-retry"] == "false"
        assert (await harness.the_event())["error_code"] == "ai_provider_missing"


async def test_models_are_the_providers_that_the_app_allows(
    harness: Harness, upstream: Upstream
) -> None:
    models = [{"id": "a", "created": 5, "owned_by": "x"}, {"id": "b"}]
    upstream.script = answer(200, {"object": "list", "data": models})
    listed = await harness.http.get(f"{harness.path}/models")
    assert [model["id"] for model in listed.json()["data"]] == ["a", "b"]
    await harness.http.put(f"{harness.path}/ai/config", json={"allowedModels": ["a"]})
    listed = await harness.http.get(f"{harness.path}/models")
    model = {"id": "a", "object": "model", "created": 5, "owned_by": "x"}
    assert listed.json() == {"object": "list", "data": [model]}
    assert (upstream.last.method, upstream.last.path) == ("GET", "/v1/models")
