"""What calls are charged that did not end well, and what was reserved for those that do."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from butterbase.ai.calls import relay
from butterbase.ai.money import journal
from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.projections.usage import AiCall, encode_call
from tests.ai.beside import gateway_with_all
from tests.ai.conftest import Harness, running_gateway, sse_data, until
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    USAGE,
    Received,
    Script,
    Upstream,
    answer,
    chunk,
    hang_up,
    silence,
    stream,
)
from tests.postgres import Database

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
PROMPT_NANOS = 25_000
"""Of the 5 tokens that the prompt of these tests is counted for, at 5 dollars a million."""


async def leave_at(harness: Harness, mark: bytes) -> None:
    """As soon as the client has read this."""
    async with (
        httpx.AsyncClient(base_url=harness.origin) as client,
        client.stream("POST", harness.chat_path, json=CHAT) as response,
    ):
        heard = b""
        async for part in response.aiter_bytes():
            heard += part
            if mark in heard:
                return


# Clients that leave


async def test_whoever_leaves_with_the_whole_answer_pays_for_its_thoughts(
    harness: Harness, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, hear_usage = asyncio.Event(), relay.Relay._hear_usage

    async def notice(self: relay.Relay) -> None:
        left.set()
        await hear_usage(self)

    monkeypatch.setattr(relay.Relay, "_hear_usage", notice)
    upstream.script = stream(chunk("a"), chunk("b", finish="stop"), left, chunk(usage=USAGE), DONE)
    await leave_at(harness, b'"stop"')
    event = await harness.the_event()
    assert (event["status"], event["usage_source"]) == ("cancelled", "reported")
    assert (event["reasoning_tokens"], event["cost_nanos"]) == (4, 345_000)


async def test_a_provider_that_tells_nothing_more_is_not_waited_for(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("abcd"), chunk("efgh", finish="stop"), None)
    await leave_at(harness, b'"stop"')
    async with asyncio.timeout(20):
        await upstream.last.left.wait()
    event = await harness.the_event()
    assert (event["usage_source"], event["completion_tokens"]) == ("estimated", 2)


async def test_what_is_too_long_to_be_remembered_is_charged_all_the_same(
    harness: Harness, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "KEPT_BYTES_MAX", 10_000)
    pieces = [chunk("x" * 400) for _ in range(50)]  # a hundred tokens each
    upstream.script = stream(*pieces, chunk("END"), None)
    await leave_at(harness, b"END")
    event = await harness.the_event()
    assert (event["status"], event["usage_source"]) == ("cancelled", "estimated")
    assert 4_500 <= event["completion_tokens"] <= 5_500


# Providers that fail at work


async def test_an_answer_that_does_not_come_in_time_costs_its_prompt(
    control: Database, upstream: Upstream
) -> None:
    upstream.script = silence
    settings = AiSettings(
        ai_base_url=upstream.base_url, ai_connect_timeout_s=0.2, ai_total_timeout_s=1.0
    )
    async with running_gateway(control, settings) as harness:
        assert (await harness.chat()).status_code == 504
        event = await harness.the_event()
        assert (event["status"], event["usage_source"]) == ("timeout", "estimated")
        assert (event["prompt_tokens"], event["cost_nanos"]) == (5, PROMPT_NANOS)


async def test_a_cut_answer_and_the_next_one_are_both_charged(
    harness: Harness, upstream: Upstream
) -> None:
    cut = answer(200, b'{"id": ', {"content-length": "100"})

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if len(upstream.received) == 1:
            await cut(request, writer)
            writer.close()
        else:
            await answer(200, COMPLETION)(request, writer)

    upstream.script = script
    response = await harness.chat()
    assert response.json() == COMPLETION
    assert response.headers["x-butterbase-cost-usd"] == "0.00037"
    event = await harness.the_event()
    assert (event["attempts"], event["usage_source"]) == (2, "reported")
    assert event["prompt_tokens"] == 19 + 5
    assert event["cost_nanos"] == 345_000 + PROMPT_NANOS


async def test_lost_attempts_never_cost_more_than_was_reserved(
    harness: Harness, upstream: Upstream
) -> None:
    """The last one alone may, where its provider says so."""
    upstream.script = _cut_once(upstream, answer(200, _used(COMPLETION, 10_000_000)))
    await harness.chat(max_tokens=10)
    event = await harness.the_event()
    assert event["cost_nanos"] > event["reserved_nanos"]
    assert event["cost_nanos"] == 19 * 5_000 + 10_000_000 * 25_000


@pytest.mark.parametrize("script", [hang_up, answer(500, {}), answer(429, {})])
async def test_who_did_not_begin_is_owed_nothing(
    harness: Harness, upstream: Upstream, script: Script
) -> None:
    upstream.script = script
    await harness.chat()
    assert (await harness.the_event())["cost_nanos"] == 0


def _cut_once(upstream: Upstream, then: Script) -> Script:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if len(upstream.received) > 1:
            await then(request, writer)
        else:
            await answer(200, b"{", {"content-length": "100"})(request, writer)
            writer.close()

    return script


def _used(completion: dict[str, Any], tokens: int) -> dict[str, Any]:
    usage = {"prompt_tokens": 19, "completion_tokens": tokens, "total_tokens": 19 + tokens}
    return completion | {"usage": usage}


# What is reserved


async def reserved(harness: Harness, **fields: object) -> int:
    """Tokens of the prompt that were reserved, where an answer has one."""
    before = len(await harness.the_events())
    response = await harness.chat(max_tokens=1, **fields)
    assert response.status_code == 200, response.text
    event = (await harness.the_events())[before]
    tokens: int = (event["reserved_nanos"] - 25_000) // 5_000
    return tokens


async def test_the_bound_holds_what_a_provider_adds(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    plain = await reserved(harness)
    assert plain < 200
    assert await reserved(harness, tools=[tool]) > plain + 530
    computer = {"type": "computer_20250124", "name": "computer"}
    assert await reserved(harness, tools=[tool, computer]) > plain + 530 + 735
    searching: list[dict[str, object]] = [
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
    ]
    for fields in searching:
        assert await reserved(harness, **fields) >= 1_000_000, fields
    predicted = "x" * 1000
    prediction = {"type": "content", "content": predicted}
    # Each of its bytes may be a token of the answer as well, at five times the price.
    assert await reserved(harness, prediction=prediction) > plain + 1000 + 5 * 1000


async def test_placeholders_are_reserved_for(control: Database, upstream: Upstream) -> None:
    async with gateway_with_all(control, upstream) as harness:
        response = await harness.http.put(
            f"{harness.path}/ai/config", json={"guards": {"redact": ["email"]}}
        )
        assert response.status_code == 200
        upstream.script = answer(200, COMPLETION)
        mails = " ".join(f"{number}@b.co" for number in range(500))
        messages = [{"role": "user", "content": mails}]
        tokens = await reserved(harness, messages=messages)
        assert tokens >= len(upstream.last.body) > 2 * len(json.dumps(messages))


# Whatever stands beside a call


class _Broken:
    """A cache that fails when the call has ended."""

    state = "miss"
    kept = None

    async def keep(self, fresh: object) -> None:
        raise KeyError

    def drop(self, *, has_left: bool = False) -> None:
        raise KeyError

    def check(self, rules: object) -> None:
        pass

    async def find(self, *_: object) -> "_Broken":
        return self


@pytest.fixture
async def broken(control: Database, upstream: Upstream) -> AsyncIterator[Harness]:
    settings = AiSettings(ai_base_url=upstream.base_url)
    async with running_gateway(control, settings, seams=Seams(_Broken())) as harness:  # type: ignore[arg-type]
        await harness.http.put(f"{harness.path}/ai/config", json={"cache": {}})
        yield harness


@pytest.mark.parametrize(
    ("script", "fields", "status"),
    [
        (answer(200, COMPLETION), {}, "ok"),
        (answer(500, {}), {}, "failed"),
        (stream(chunk("a"), cut=True), {"stream": True}, "failed"),
        (stream(chunk("a", finish="stop"), DONE), {"stream": True}, "ok"),
    ],
)
async def test_a_cache_that_fails_takes_no_event_along(
    broken: Harness,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    fields: dict[str, Any],
    status: str,
) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("butterbase.ai.calls.gateway.read_stream", fail)
    monkeypatch.setattr("butterbase.ai.calls.gateway.read_answer", fail)
    upstream.script = script
    response = await broken.chat(**fields)
    assert "ai_internal_error" not in response.text
    (event,) = await broken.the_events()
    assert event["status"] == status


async def test_an_event_that_cannot_be_written_at_all_is_kept(
    harness: Harness, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script = answer(200, COMPLETION)

    async def fail(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("butterbase.ai.money.journal.Journal._insert", fail)
        assert (await harness.chat()).status_code == 200
        await until(lambda: harness.gateway.call_count == 0)
    assert harness.events() == []
    await harness.ledger.write_waiting()
    assert (await harness.the_event())["status"] == "ok"


async def test_one_event_that_cannot_be_encoded_keeps_no_others_out(
    harness: Harness, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script = answer(200, COMPLETION)

    def encode(call: AiCall) -> bytes:
        if call.requested_model == "bad":
            raise ValueError
        return encode_call(call)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "encode_call", encode)
        models = ["good", "bad", "good", "good"]
        await asyncio.gather(*(harness.chat(model=model) for model in models))
        assert {e["requested_model"] for e in await harness.the_events()} == {"good"}
    await harness.ledger.write_waiting()
    assert len(await harness.the_events()) == 4


# The cost of streams


def comment_of(text: str) -> int:
    """The nano-dollars that its comment tells."""
    (told,) = [line for line in text.split("\n") if line.startswith(": x-butterbase-cost-usd: ")]
    return round(float(told.rpartition(" ")[2]) * 10**9)


async def test_a_cut_stream_tells_what_it_did_cost(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("abcdefgh"), cut=True)
    response = await harness.chat(stream=True)
    event = await harness.the_event()
    assert (event["status"], event["cost_nanos"]) == ("failed", PROMPT_NANOS + 2 * 25_000)
    assert comment_of(response.text) == event["cost_nanos"]
    assert "error" in sse_data(response.text)[-1]


ANTHROPIC = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant",
     "model": "claude", "content": [], "usage": {"input_tokens": 100, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
    {"type": "message_stop"},
]  # fmt: skip
RESPONSE = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": [],
            "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}}  # fmt: skip
RESPONSES = [
    {"type": "response.created", "response": RESPONSE | {"status": "in_progress", "usage": None}},
    {"type": "response.completed", "response": RESPONSE},
]


@pytest.mark.parametrize(
    ("kind", "path", "events"),
    [("anthropic", "messages", ANTHROPIC), ("openai", "responses", RESPONSES)],
)
async def test_a_stream_that_passes_has_the_cost_in_its_last_usage(
    harness: Harness, upstream: Upstream, kind: str, path: str, events: list[dict[str, Any]]
) -> None:
    provider = {"kind": kind, "baseUrl": upstream.base_url}
    price = {"input": "3", "output": "15"}
    target = {"provider": "it", "model": "m", "price": price}
    await harness.http.put(
        f"{harness.path}/ai/config",
        json={"providers": {"it": provider}, "routes": [{"match": "*", "targets": [target]}]},
    )
    pieces = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
    upstream.script = stream(*pieces)
    body = {"model": "m", "stream": True, "max_tokens": 9, "input": "Hi"}
    body["messages"] = CHAT["messages"]
    response = await harness.http.post(f"{harness.path}/{path}", json=body)
    told = sse_data(response.text)
    last = told[-2]["usage"] if path == "messages" else told[-1]["response"]["usage"]
    assert last["cost"] == 0.0006
    assert comment_of(response.text) == 600_000
    assert (await harness.the_event())["cost_nanos"] == 600_000
    # All else is as it came.
    del last["cost"]
    assert told == events
    assert [line for line in response.text.split("\n") if line.startswith("event: ")] == [
        f"event: {event['type']}" for event in events
    ]
