"""The cache as clients meet it: over HTTP, around calls to a provider."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.ai.beside import OTHERS, USERS, ask, cache_of, configure, gateway_with_all, kept
from tests.ai.conftest import Harness, sse_data, until, without_cost
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    RATE_LIMITED,
    USAGE,
    Received,
    Script,
    Upstream,
    answer,
    chunk,
    silence,
    stream,
)
from tests.postgres import Database


@pytest.fixture
async def harness(control: Database, upstream: Upstream) -> AsyncIterator[Harness]:
    async with gateway_with_all(control, upstream) as harness:
        yield harness


async def test_the_same_question_costs_once(harness: Harness, upstream: Upstream) -> None:
    await configure(harness, cache={})
    upstream.script = answer(200, COMPLETION)
    first = await ask(harness)
    assert cache_of(first) == "miss"
    await kept(harness)
    second = await ask(harness)
    assert cache_of(second) == "hit"
    assert second.headers["x-butterbase-cost-usd"] == "0.00"
    assert second.headers["x-butterbase-model"] == "gpt-test"
    assert second.json()["choices"] == first.json()["choices"]
    assert second.json()["usage"]["total_tokens"] == 29
    assert second.json()["id"] != first.json()["id"]
    assert len(upstream.received) == 1
    missed, hit = await harness.the_events()
    assert (missed["cache"], hit["cache"]) == ("miss", "hit")
    assert (hit["cost_nanos"], hit["attempts"]) == (0, 0)
    assert hit["saved_nanos"] == missed["cost_nanos"] > 0


@pytest.mark.parametrize("threshold", [None, 0.9])
async def test_users_of_other_issuers_get_no_answers_of_each_other(
    harness: Harness, upstream: Upstream, threshold: float | None
) -> None:
    """Their subjects are no UUIDs, and a request may name anybody as its `user`."""
    await configure(harness, cache={"threshold": threshold})
    upstream.script = answer(200, COMPLETION)
    told = []
    for subject in ("auth0|1", "auth0|2", "auth0|1"):
        headers = {"x-test-role": "authenticated", "x-test-user": subject}
        told.append(cache_of(await ask(harness, headers=headers, user="auth0|1")))
        await kept(harness, 2 if len(told) > 1 else 1)
    assert told == ["miss", "miss", "hit"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [("messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}),
     ("responses", {"store": False, "input": "Hi"})],
)  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_clients_of_other_apis_get_it_again_too(
    harness: Harness, upstream: Upstream, path: str, fields: dict[str, object], is_streamed: bool
) -> None:
    # A provider that speaks OpenAI's chat form alone.
    await configure(harness, cache={})
    upstream.script = answer(200, COMPLETION)
    answers = []
    for streamed in (False, is_streamed):
        body = {"model": "gpt-test", "stream": streamed, **fields}
        url = f"{harness.path}/{path}"
        answers.append(await harness.http.post(url, json=body, headers=USERS))
        await kept(harness)
    assert [cache_of(response) for response in answers] == ["miss", "hit"]
    assert all("Hello!" in response.text for response in answers)
    assert len(upstream.received) == 1


async def test_nothing_is_kept_unless_the_app_says_so(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    for _ in range(2):
        assert cache_of(await ask(harness)) == "off"
    assert len(upstream.received) == 2


async def test_a_stream_is_played_again_as_stream_and_as_json(
    harness: Harness, upstream: Upstream
) -> None:
    await configure(harness, cache={})
    pieces = [chunk("Hel"), chunk("lo", finish="stop"), chunk(usage=USAGE), DONE]
    upstream.script = stream(*pieces)
    first = await ask(harness, stream=True)
    assert without_cost(first.content) == pieces[0] + pieces[1] + DONE
    await kept(harness)
    again = await ask(harness, stream=True, stream_options={"include_usage": True})
    assert cache_of(again) == "hit"
    assert again.headers["content-type"].startswith("text/event-stream")
    *chunks, end = sse_data(again.text)
    assert end == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1]) == "Hello"
    assert chunks[-1]["usage"]["total_tokens"] == 29
    assert chunks[-1]["usage"]["cost"] == 0
    whole = await ask(harness)
    assert cache_of(whole) == "hit"
    assert whole.json()["choices"][0]["message"]["content"] == "Hello"
    assert len(upstream.received) == 1


async def test_a_whole_answer_is_played_as_a_stream_to_openais_client(
    harness: Harness, upstream: Upstream
) -> None:
    await configure(harness, cache={})
    upstream.script = answer(200, COMPLETION)
    async with AsyncOpenAI(base_url=f"{harness.origin}{harness.path}", api_key="x") as client:
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        await client.chat.completions.create(**asked)
        await kept(harness)
        streamed = await client.chat.completions.create(**asked, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in streamed])
    assert text == "Hello!"
    assert len(upstream.received) == 1


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hel"}}


@pytest.mark.parametrize(
    "script",
    [
        answer(429, RATE_LIMITED),
        answer(200, COMPLETION | {"choices": [CHOICE | {"finish_reason": "length"}]}),
        stream(chunk("Hel"), cut=True),
        stream(chunk("Hel"), b'data: {"error": {"message": "no"}}\n\n'),
    ],
    ids=["refused", "too long", "cut", "error"],
)
async def test_what_is_no_whole_answer_is_not_kept(
    harness: Harness, upstream: Upstream, script: Script
) -> None:
    await configure(harness, cache={}, routes=[])
    upstream.script = script
    await ask(harness, stream=True)
    upstream.script = answer(200, COMPLETION)
    assert cache_of(await ask(harness)) == "miss"


async def test_a_client_may_decline(harness: Harness, upstream: Upstream) -> None:
    await configure(harness, cache={})
    upstream.script = answer(200, COMPLETION)
    await ask(harness)
    await kept(harness)
    for control in ("no-store", "no-cache"):
        response = await ask(harness, headers=USERS | {"cache-control": control})
        assert cache_of(response) == "bypass"
    assert len(upstream.received) == 3


@pytest.mark.parametrize(("scope", "state"), [("user", "miss"), ("app", "hit")])
async def test_users_have_their_own_unless_the_app_shares(
    harness: Harness, upstream: Upstream, scope: str, state: str
) -> None:
    upstream.script = answer(200, COMPLETION)
    await configure(harness, cache={"scope": scope})
    await ask(harness)
    await kept(harness)
    assert cache_of(await ask(harness, headers=OTHERS)) == state


async def test_near_questions_tell_how_near(harness: Harness, upstream: Upstream) -> None:
    await configure(harness, cache={"threshold": 0.9})
    upstream.script = answer(200, COMPLETION)
    await ask(harness, "Passwords how to reset one")
    await kept(harness)
    near = await ask(harness, "passwords the way of resetting")
    assert cache_of(near) == "semantic"
    assert 0.9 <= float(near.headers["x-butterbase-cache-similarity"]) < 1
    events = await harness.the_events()
    assert events[1]["cache_similarity"] >= 0.9
    assert len(upstream.received) == 1


async def test_what_only_its_provider_can_read_is_passed_by(
    harness: Harness, upstream: Upstream
) -> None:
    await configure(harness, cache={})
    upstream.script = answer(200, COMPLETION)
    response = await ask(harness, functions=[{"name": "f"}])
    assert (response.status_code, cache_of(response)) == (200, "bypass")


def gated(gate: asyncio.Event) -> Script:
    whole = answer(200, COMPLETION)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await whole(request, writer)

    return script


async def test_many_at_once_make_one_call(harness: Harness, upstream: Upstream) -> None:
    await configure(harness, cache={})
    gate = asyncio.Event()
    upstream.script = gated(gate)
    asking = [asyncio.create_task(ask(harness, stream=n % 2 == 0)) for n in range(20)]
    await until(lambda: harness.gateway.call_count == 20)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert sorted(map(cache_of, answers)) == ["hit"] * 19 + ["miss"]
    assert len(upstream.received) == 1
    assert sum(event["cost_nanos"] > 0 for event in await harness.the_events()) == 1


async def test_when_the_first_leaves_the_others_are_answered_by_one_call(
    harness: Harness, upstream: Upstream
) -> None:
    await configure(harness, cache={})
    upstream.script = silence
    first = asyncio.create_task(ask(harness))
    await until(lambda: len(upstream.received) == 1)
    others = [asyncio.create_task(ask(harness)) for _ in range(10)]
    await until(lambda: harness.gateway.call_count == 11)
    upstream.script = answer(200, COMPLETION)
    first.cancel()
    answers = await asyncio.gather(*others)
    assert [response.status_code for response in answers] == [200] * 10
    assert len(upstream.received) == 2


async def test_when_the_first_fails_the_others_ask_for_themselves(
    harness: Harness, upstream: Upstream
) -> None:
    await configure(harness, cache={}, routes=[ROUTE])
    gate = asyncio.Event()
    refused, fine = answer(400, RATE_LIMITED), answer(200, COMPLETION)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await (refused if request is upstream.received[0] else fine)(request, writer)

    upstream.script = script
    asking = [asyncio.create_task(ask(harness)) for _ in range(5)]
    await until(lambda: harness.gateway.call_count == 5)
    gate.set()
    statuses = sorted(response.status_code for response in await asyncio.gather(*asking))
    assert statuses == [200, 200, 200, 200, 400]


ROUTE = {"match": "gpt-*", "targets": [{"provider": "default"}], "retries": {"count": 0}}


async def test_a_routes_rules_go_before_the_apps(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    await configure(harness, cache={}, routes=[ROUTE | {"cache": {"scope": "off"}}])
    assert cache_of(await ask(harness)) == "off"


@pytest.mark.parametrize(
    "config", [{"cache": {"scope": "all"}}, {"cache": 1}, {"guards": {"redact": "email"}}], ids=str
)
async def test_rules_that_are_none_are_refused(harness: Harness, config: Any) -> None:
    refused = await harness.http.put(f"{harness.path}/ai/config", json=config)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in config
