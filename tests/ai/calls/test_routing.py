"""Calls over several providers: fallbacks, retries, cooldowns, timeouts, translation."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.ai.conftest import Harness, sse_data, without_cost
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    RATE_LIMITED,
    Received,
    Script,
    Upstream,
    answer,
    chunk,
    hang_up,
    running_upstream,
    silence,
    stream,
)
from tests.ai.wire.shapes_anthropic import ANTHROPIC_TEXT
from tests.ai.wire.shapes_gemini import GEMINI_TEXT

FAILED = answer(500, {"error": {"message": "oops"}})
WHOLE = stream(chunk("a", finish="stop"), DONE)
CHAT = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}]}
ORDERED = [{"provider": "one", "model": "m1"}, {"provider": "two", "model": "m2"}]
NO_RETRIES = {"count": 0}


class Providers:
    """Two of them, each with a server of its own."""

    def __init__(self, harness: Harness, one: Upstream, two: Upstream) -> None:
        self.harness = harness
        self.one = one
        self.two = two

    async def put(self, **fields: Any) -> httpx.Response:
        response = await self.harness.http.put(f"{self.harness.path}/ai/config", json=fields)
        assert response.status_code == 200, response.text
        return response

    async def route(self, *targets: dict[str, Any], **fields: Any) -> None:
        """The model `smart` is a route of these targets."""
        rules: dict[str, Any] = {"match": "smart", "targets": list(targets) or ORDERED}
        providers = {
            name: {
                "kind": "openai_compatible",
                "baseUrl": upstream.base_url,
                "apiKey": f"sk-{name}-key",
            }
            for name, upstream in (("one", self.one), ("two", self.two))
        }
        await self.put(providers=providers, routes=[{"retries": NO_RETRIES, **rules, **fields}])

    async def ask(self, **fields: Any) -> httpx.Response:
        return await self.harness.http.post(self.harness.chat_path, json={**CHAT, **fields})


@pytest.fixture
async def providers(harness: Harness) -> AsyncIterator[Providers]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running_upstream())
        two = await stack.enter_async_context(running_upstream())
        one.script = two.script = answer(200, COMPLETION)
        yield Providers(harness, one, two)


def served(response: httpx.Response) -> tuple[str, str, str]:
    """Provider, model and attempts, as the answer's headers tell them."""
    headers = response.headers
    names = ("provider", "model", "attempts")
    provider, model, attempts = (headers[f"x-butterbase-{name}"] for name in names)
    return provider, model, attempts


async def test_an_alias_is_served_by_its_target_with_that_providers_key(
    providers: Providers,
) -> None:
    await providers.route()
    response = await providers.ask()
    assert (response.status_code, served(response)) == (200, ("one", "m1", "1"))
    assert providers.one.last.json()["model"] == "m1"
    assert providers.one.last.headers["authorization"] == "Bearer sk-one-key"
    event = await providers.harness.the_event()
    assert (event["requested_model"], event["model"], event["provider"]) == ("smart", "m1", "one")
    assert event["is_byok"] is True


@pytest.mark.parametrize(
    "script",
    [
        FAILED,
        hang_up,
        answer(429, RATE_LIMITED, {"retry-after": "30"}),
        answer(401, {"error": {"message": "bad key"}}),
        answer(404, {"error": {"message": "no such model"}}),
        answer(200, b"<html>"),
        answer(200, {"error": {"message": "told as a success", "code": 502}}),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_next_target_is_called_where_one_fails(
    providers: Providers, script: Script, is_streamed: bool
) -> None:
    await providers.route()
    providers.one.script = script
    providers.two.script = WHOLE if is_streamed else answer(200, COMPLETION)
    response = await providers.ask(stream=is_streamed)
    assert (response.status_code, served(response)) == (200, ("two", "m2", "2"))
    assert providers.two.last.headers["authorization"] == "Bearer sk-two-key"
    event = await providers.harness.the_event()
    assert (event["status"], event["attempts"], event["model"]) == ("ok", 2, "m2")


async def test_a_wrong_request_is_not_sent_to_others(providers: Providers) -> None:
    await providers.route()
    providers.one.script = answer(400, {"error": {"message": "bad temperature"}})
    assert (await providers.ask()).status_code == 400
    assert providers.two.received == []


async def test_when_all_fail_the_last_one_is_told(providers: Providers) -> None:
    await providers.route()
    providers.one.script = FAILED
    providers.two.script = answer(429, RATE_LIMITED, {"retry-after": "30"})
    response = await providers.ask()
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    assert response.json() == RATE_LIMITED


async def test_a_failure_that_may_pass_is_tried_again_before_the_next_target(
    providers: Providers,
) -> None:
    await providers.route(retries={"count": 1})
    scripts = iter([FAILED, answer(200, COMPLETION)])

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await next(scripts)(request, writer)

    providers.one.script = script
    assert served(await providers.ask()) == ("one", "m1", "2")
    assert providers.two.received == []


async def test_retry_after_is_waited_for_where_nobody_else_is_left(providers: Providers) -> None:
    await providers.route(ORDERED[0], retries={"count": 1})
    limited = answer(429, RATE_LIMITED, {"retry-after-ms": "300"})
    scripts = iter([limited, answer(200, COMPLETION)])
    times: list[float] = []

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        times.append(asyncio.get_running_loop().time())
        await next(scripts)(request, writer)

    providers.one.script = script
    assert (await providers.ask()).status_code == 200
    assert times[1] - times[0] >= 0.3


async def test_a_target_that_is_rate_limited_is_left_alone_while_it_asks_for_that(
    providers: Providers,
) -> None:
    await providers.route()
    providers.one.script = answer(429, RATE_LIMITED, {"retry-after": "30"})
    await providers.ask()
    assert served(await providers.ask()) == ("two", "m2", "1")
    assert len(providers.one.received) == 1


async def test_a_target_that_keeps_failing_is_called_last(providers: Providers) -> None:
    await providers.route()
    providers.one.script = FAILED
    attempts = [served(await providers.ask())[2] for _ in range(5)]
    assert attempts == ["2", "2", "2", "1", "1"]
    providers.one.script = answer(200, COMPLETION)
    providers.two.script = FAILED
    assert served(await providers.ask()) == ("one", "m1", "2")


async def test_streams_that_are_cut_count_against_their_target(providers: Providers) -> None:
    await providers.route()
    providers.one.script = stream(chunk("a"), cut=True)
    providers.two.script = WHOLE
    for _ in range(3):
        response = await providers.ask(stream=True)
        assert served(response)[0] == "one"
    assert served(await providers.ask(stream=True))[0] == "two"


# Streams


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b": ping\n\n"],
        [b'data: {"error": {"message": "overloaded", "code": 503}}\n\n', DONE],
        [b": ping\n\n", b'data: {"error": {"message": "overloaded"}}\n\n'],
    ],
)
async def test_a_stream_that_fails_before_its_first_event_falls_back(
    providers: Providers, pieces: list[bytes]
) -> None:
    await providers.route()
    providers.one.script = stream(*pieces, cut=True)
    providers.two.script = WHOLE
    response = await providers.ask(stream=True)
    assert served(response) == ("two", "m2", "2")
    assert without_cost(response.content) == chunk("a", finish="stop") + DONE


async def test_a_stream_that_fails_after_its_first_event_never_falls_back(
    providers: Providers,
) -> None:
    await providers.route(retries={"count": 3})
    more = asyncio.Event()
    providers.one.script = stream(chunk("Hel"), more, cut=True)
    providers.two.script = WHOLE
    async with providers.harness.http.stream(
        "POST", providers.harness.chat_path, json={**CHAT, "stream": True}
    ) as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == chunk("Hel")
        more.set()
        rest = b"".join([part async for part in parts])
    assert sse_data(rest.decode())[-1]["error"]["code"] == "upstream_stream_cut"
    assert len(providers.one.received) == 1
    assert providers.two.received == []
    event = await providers.harness.the_event()
    assert (event["status"], event["usage_source"]) == ("failed", "estimated")
    assert event["completion_tokens"] == 1
    assert event["cost_nanos"] > 0


async def test_a_slow_first_token_is_given_up_for_the_next_target(providers: Providers) -> None:
    slow = {**ORDERED[0], "timeouts": {"firstToken": 0.1}}
    await providers.route(slow, ORDERED[1])
    providers.one.script = stream(b": ping\n\n", None)
    providers.two.script = WHOLE
    response = await providers.ask(stream=True)
    assert served(response) == ("two", "m2", "2")
    async with asyncio.timeout(20):
        await providers.one.last.left.wait()


async def test_a_slow_answer_is_given_up_for_the_next_target(providers: Providers) -> None:
    await providers.route({**ORDERED[0], "timeouts": {"total": 0.1}}, ORDERED[1])
    providers.one.script = silence
    assert served(await providers.ask()) == ("two", "m2", "2")
    async with asyncio.timeout(20):
        await providers.one.last.left.wait()


# Fallbacks for what another request of the same kind would not mend

TOO_LONG = answer(
    400,
    {"error": {"message": "maximum context length", "code": "context_length_exceeded"}},
)
FLAGGED = answer(400, {"error": {"message": "flagged", "code": "content_policy_violation"}})


@pytest.mark.parametrize(
    ("script", "name"), [(TOO_LONG, "contextWindow"), (FLAGGED, "contentPolicy")]
)
async def test_fallbacks_are_for_their_own_kind_of_failure(
    providers: Providers, script: Script, name: str
) -> None:
    await providers.route(ORDERED[0], fallbacks={name: [{"provider": "two", "model": "other"}]})
    providers.one.script = script
    assert served(await providers.ask()) == ("two", "other", "2")
    providers.one.script = FAILED
    assert (await providers.ask()).status_code == 500


async def test_without_a_fallback_refused_content_is_told(providers: Providers) -> None:
    await providers.route()
    providers.one.script = FLAGGED
    response = await providers.ask()
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_policy_violation"
    assert providers.two.received == []


# Strategies


async def test_cost_calls_the_cheapest_target(providers: Providers) -> None:
    dear, cheap = ({"input": price, "output": price} for price in (10, 1))
    await providers.route(
        {**ORDERED[0], "price": dear}, {**ORDERED[1], "price": cheap}, strategy="cost"
    )
    assert served(await providers.ask())[0] == "two"
    event = await providers.harness.the_event()
    # 19 and 10 tokens at a dollar a million.
    assert (event["cost_nanos"], event["price_source"]) == (29_000, "override")


async def test_weights_share_out_the_calls(providers: Providers) -> None:
    await providers.route(
        {**ORDERED[0], "weight": 1}, {**ORDERED[1], "weight": 0}, strategy="weighted"
    )
    assert {served(await providers.ask())[0] for _ in range(5)} == {"one"}
    providers.one.script = FAILED
    assert served(await providers.ask())[0] == "two"


async def test_latency_calls_the_fastest_target(providers: Providers) -> None:
    await providers.route(strategy="latency")

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await answer(200, COMPLETION)(request, writer)

    providers.one.script = slow
    first = [served(await providers.ask())[0] for _ in range(10)]
    assert first.count("two") >= 6


# Other wires


async def test_a_target_of_another_wire_is_translated_both_ways(providers: Providers) -> None:
    await providers.put(
        providers={
            "claude": {
                "kind": "anthropic",
                "baseUrl": providers.one.base_url,
                "apiKey": "sk-ant-key",
            }
        },
        routes=[{"match": "smart", "targets": [{"provider": "claude", "model": "claude-opus-5"}]}],
    )
    providers.one.script = answer(200, ANTHROPIC_TEXT.body)
    response = await providers.ask()
    assert response.json()["choices"][0]["message"]["content"] == "Hello there."
    request = providers.one.last
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-ant-key"
    assert "authorization" not in request.headers
    assert request.json()["model"] == "claude-opus-5"
    event = await providers.harness.the_event()
    assert (event["prompt_tokens"], event["cached_tokens"]) == (1390, 1000)
    assert (event["completion_tokens"], event["usage_source"]) == (40, "reported")


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": "many"}, 5])
async def test_a_translated_answer_without_readable_usage_is_estimated(
    providers: Providers, usage: object
) -> None:
    await providers.put(
        providers={"claude": {"kind": "anthropic", "baseUrl": providers.one.base_url}},
        routes=[{"match": "smart", "targets": [{"provider": "claude"}]}],
    )
    providers.one.script = answer(200, {**json.loads(ANTHROPIC_TEXT.body), "usage": usage})
    response = await providers.ask()
    assert response.json()["choices"][0]["message"]["content"] == "Hello there."
    event = await providers.harness.the_event()
    assert (event["usage_source"], event["prompt_tokens"]) == ("estimated", 5)
    assert event["completion_tokens"] == 3


@pytest.mark.parametrize("holds_on", [False, True])
async def test_a_translated_stream_ends_with_its_answer(
    providers: Providers, holds_on: bool
) -> None:
    """Also where the provider keeps the connection open."""
    await providers.put(
        providers={"claude": {"kind": "anthropic", "baseUrl": providers.one.base_url}},
        routes=[{"match": "smart", "targets": [{"provider": "claude", "model": "claude-opus-5"}]}],
    )
    providers.one.script = stream(ANTHROPIC_TEXT.stream, *([None] if holds_on else []))
    async with asyncio.timeout(20):
        response = await providers.ask(stream=True, stream_options={"include_usage": True})
    *chunks, done = sse_data(response.text)
    texts = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert ("".join(texts), done) == ("Hello there.", "[DONE]")
    assert chunks[-1]["usage"]["total_tokens"] == 1430
    assert (await providers.harness.the_event())["total_tokens"] == 1430


async def test_a_translated_stream_that_is_cut_is_told_so(providers: Providers) -> None:
    await providers.put(
        providers={"claude": {"kind": "anthropic", "baseUrl": providers.one.base_url}},
        routes=[{"match": "smart", "targets": [{"provider": "claude"}]}],
    )
    begun = ANTHROPIC_TEXT.stream[: ANTHROPIC_TEXT.stream.index(b" there.")]
    providers.one.script = stream(begun, cut=True)
    response = await providers.ask(stream=True)
    assert sse_data(response.text)[-1]["error"]["code"] == "upstream_stream_cut"
    event = await providers.harness.the_event()
    # What the provider told of the prompt counts, and what came of the answer.
    assert (event["prompt_tokens"], event["completion_tokens"]) == (1390, 2)


async def test_gemini_is_called_by_its_own_path_and_key(providers: Providers) -> None:
    await providers.put(
        providers={
            "google": {
                "kind": "gemini",
                "baseUrl": f"{providers.one.base_url}beta",
                "apiKey": "AIza-key",
            }
        },
        routes=[{"match": "smart", "targets": [{"provider": "google", "model": "gemini-3-pro"}]}],
    )
    providers.one.script = answer(200, GEMINI_TEXT.body)
    response = await providers.ask()
    assert response.status_code == 200
    assert providers.one.last.path == "/v1beta/models/gemini-3-pro:generateContent"
    assert providers.one.last.headers["x-goog-api-key"] == "AIza-key"


async def test_a_target_that_cannot_be_asked_for_this_is_passed_over(
    providers: Providers,
) -> None:
    await providers.put(
        providers={
            "claude": {"kind": "anthropic", "baseUrl": providers.one.base_url},
            "two": {"kind": "openai_compatible", "baseUrl": providers.two.base_url},
        },
        routes=[{"match": "smart", "targets": [{"provider": "claude"}, {"provider": "two"}]}],
    )
    assert served(await providers.ask(n=2)) == ("two", "smart", "1")
    assert providers.one.received == []


async def test_headers_of_a_provider_go_with_each_request(providers: Providers) -> None:
    await providers.put(
        providers={
            "one": {
                "kind": "openrouter",
                "baseUrl": providers.one.base_url,
                "headers": {"X-Title": "Ours"},
            }
        },
        routes=[{"match": "*", "targets": [{"provider": "one"}]}],
    )
    await providers.ask()
    assert providers.one.last.headers["x-title"] == "Ours"


# The list of models


async def test_models_are_those_of_all_providers_that_calls_reach(providers: Providers) -> None:
    await providers.route()
    await providers.put(
        routes=[
            {"match": "smart", "targets": ORDERED},
            {"match": "gpt-*", "targets": [{"provider": "two"}]},
        ]
    )

    def listing(*names: str) -> Script:
        return answer(200, {"object": "list", "data": [{"id": name} for name in names]})

    providers.one.script = listing("gpt-1", "unrouted")
    providers.two.script = listing("gpt-2")
    path = f"{providers.harness.path}/models"
    listed = await providers.harness.http.get(path)
    names = [model["id"] for model in listed.json()["data"]]
    assert names == ["smart", "gpt-2"]
    providers.two.script = FAILED
    listed = await providers.harness.http.get(path)
    assert [model["id"] for model in listed.json()["data"]] == ["smart"]


async def test_one_model_is_found_by_its_name(providers: Providers) -> None:
    await providers.route()
    path = f"{providers.harness.path}/models"
    assert (await providers.harness.http.get(f"{path}/smart")).json()["id"] == "smart"
    missing = await providers.harness.http.get(f"{path}/a%2Fb")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "ai_model_unknown"


async def test_anthropics_clients_get_their_own_list(providers: Providers) -> None:
    await providers.route()
    headers = {"anthropic-version": "2023-06-01"}
    listed = await providers.harness.http.get(f"{providers.harness.path}/models", headers=headers)
    assert [(m["type"], m["id"]) for m in listed.json()["data"]] == [("model", "smart")]
