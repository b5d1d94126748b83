"""Streamed answers: promptness, the usage chunk, [DONE], and what happens when an end fails."""

import asyncio
import json

import httpx
import pytest

from tests.ai.conftest import Harness, sse_data, without_cost
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

COST = b": x-butterbase-cost-usd: 0.000345\n\n"
"""Of USAGE: 19 tokens at 5 and 10 at 25 dollars a million."""
PRICED = USAGE | {"cost": 0.000345}

CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


async def test_chunks_pass_byte_for_byte_without_the_usage_only_we_asked_for(
    harness: Harness, upstream: Upstream
) -> None:
    head, tail = chunk("Hel"), chunk("lo", finish="stop")
    upstream.script = stream(head[:10], head[10:] + tail, chunk(usage=USAGE), DONE)
    response = await harness.chat(stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.content == head + tail + COST + DONE
    assert upstream.last.json()["stream_options"] == {"include_usage": True}
    event = await harness.the_event()
    assert (event["status"], event["stream"], event["http_status"]) == ("ok", True, 200)
    assert (event["prompt_tokens"], event["completion_tokens"], event["cached_tokens"]) == (
        19,
        10,
        16,
    )
    assert event["usage_source"] == "reported"
    assert 0 <= event["first_token_ms"] <= event["latency_ms"]


async def test_a_client_that_asks_for_usage_gets_it(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a", finish="stop"), chunk(usage=USAGE), DONE)
    options = {"include_usage": True, "include_obfuscation": False}
    response = await harness.chat(stream=True, stream_options=options)
    assert sse_data(response.text)[1]["usage"] == PRICED
    assert upstream.last.json()["stream_options"] == options


async def test_other_stream_options_are_kept(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a", finish="stop"), DONE)
    await harness.chat(stream=True, stream_options={"include_usage": False, "x": 1})
    assert upstream.last.json()["stream_options"] == {"include_usage": True, "x": 1}


async def test_usage_beside_choices_is_read_and_the_choices_pass(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a") + chunk("b", finish="stop", usage=USAGE) + DONE)
    response = await harness.chat(stream=True)
    first, second, _ = sse_data(response.text)
    assert first == sse_data(chunk("a").decode())[0]
    assert second["usage"] == PRICED
    assert second["choices"] == [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]
    assert (await harness.the_event())["total_tokens"] == 29


async def test_quirks_of_event_streams_pass_unchanged(harness: Harness, upstream: Upstream) -> None:
    multi_line = (
        b'data: {"choices": [{"index": 0, "delta": {},\ndata: "finish_reason": "stop"}]}\n\n'
    )
    pieces = [
        b": PROCESSING\r\n\r\n",
        chunk("a", end="\r\n"),
        multi_line,
        b"data: not json\n\n",
        DONE,
    ]
    upstream.script = stream(*pieces)
    assert without_cost((await harness.chat(stream=True)).content) == b"".join(pieces)


@pytest.mark.parametrize("end", [b"", b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n"])
async def test_a_finished_answer_ends_with_done_however_the_provider_ends_it(
    harness: Harness, upstream: Upstream, end: bytes
) -> None:
    upstream.script = (
        stream(chunk("a", finish="stop"), end) if end else stream(chunk("a", finish="stop"))
    )
    response = await harness.chat(stream=True)
    assert without_cost(response.content) == chunk("a", finish="stop") + DONE
    assert (await harness.the_event())["status"] == "ok"


async def test_each_event_is_passed_on_before_the_next_one_comes(
    harness: Harness, upstream: Upstream
) -> None:
    more = asyncio.Event()
    upstream.script = stream(chunk("a"), more, chunk("b", finish="stop"), DONE)
    async with harness.http.stream("POST", harness.chat_path, json=CHAT) as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == chunk("a")
        more.set()
        rest = b"".join([part async for part in parts])
        assert without_cost(rest) == chunk("b", finish="stop") + DONE


@pytest.mark.parametrize("half", [b"", b'data: {"id": "chatcmpl-1", "choi'])
async def test_a_cut_stream_tells_the_client_and_has_no_done(
    harness: Harness, upstream: Upstream, half: bytes
) -> None:
    pieces = [chunk("a"), half] if half else [chunk("a")]
    upstream.script = stream(*pieces, cut=True)
    response = await harness.chat(stream=True)
    first, last = sse_data(response.text)
    assert first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["code"] == "upstream_stream_cut"
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("failed", 200)
    assert event["error_code"] == "upstream_stream_cut"


async def test_a_clean_end_in_mid_answer_is_a_cut_too(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a"))
    response = await harness.chat(stream=True)
    assert sse_data(response.text)[-1]["error"]["code"] == "upstream_stream_cut"


async def test_a_stream_cut_before_its_first_event_is_a_502(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(cut=True)
    response = await harness.chat(stream=True)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_stream_cut"
    assert (await harness.the_event())["http_status"] == 502


async def test_an_error_event_of_the_provider_ends_the_stream(
    harness: Harness, upstream: Upstream
) -> None:
    error = f"data: {json.dumps(RATE_LIMITED)}\n\n".encode()
    more = asyncio.Event()
    upstream.script = stream(chunk("a"), more, error, DONE)
    async with harness.http.stream("POST", harness.chat_path, json=CHAT) as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == chunk("a")
        more.set()
        rest = b"".join([part async for part in parts])
    told = sse_data(rest.decode())[0]["error"]
    assert (told["message"], told["code"]) == (
        RATE_LIMITED["error"]["message"],
        "rate_limit_exceeded",
    )
    event = await harness.the_event()
    assert (event["status"], event["error_code"]) == ("failed", "upstream_refused")


async def test_an_error_before_the_stream_is_a_plain_error(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(429, RATE_LIMITED, {"retry-after": "1"})
    response = await harness.chat(stream=True)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json() == RATE_LIMITED


async def test_a_provider_that_does_not_stream_is_passed_on_whole(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    assert (await harness.chat(stream=True)).json() == COMPLETION
    assert (await harness.the_event())["total_tokens"] == 29


async def test_streams_reuse_their_connection(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a", finish="stop"), DONE)
    await harness.chat(stream=True)
    await harness.chat(stream=True)
    assert [request.connection for request in upstream.received] == [1, 1]


async def test_a_client_that_leaves_a_silent_stream_cancels_the_provider(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a"), None)
    async with (
        httpx.AsyncClient(base_url=harness.origin) as client,
        client.stream("POST", harness.chat_path, json=CHAT) as response,
    ):
        await anext(response.aiter_bytes())
    async with asyncio.timeout(20):
        await upstream.last.left.wait()
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("cancelled", 200)
    assert (event["error_code"], event["usage_source"]) == (None, "estimated")
    assert (event["prompt_tokens"], event["completion_tokens"]) == (5, 1)


async def test_a_client_that_leaves_before_the_first_token_cancels_the_provider(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(None)
    call = asyncio.create_task(harness.chat(stream=True))
    await upstream.arrived.wait()
    call.cancel()
    async with asyncio.timeout(20):
        await upstream.last.left.wait()
    event = await harness.the_event()
    assert (event["status"], event["http_status"]) == ("cancelled", None)


async def test_a_client_that_stops_reading_holds_back_the_provider(
    harness: Harness, upstream: Upstream
) -> None:
    big, sent = chunk("x" * 100_000), 0

    async def script(_request: object, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for _ in range(1000):
            writer.write(big)
            await writer.drain()
            sent += 1

    upstream.script = script
    async with (
        httpx.AsyncClient(base_url=harness.origin) as client,
        client.stream("POST", harness.chat_path, json=CHAT),
    ):
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.2)
        assert sent < 500
    assert (await harness.the_event())["status"] == "cancelled"


async def test_a_stopping_server_records_the_calls_it_cuts(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a"), None)
    async with harness.http.stream("POST", harness.chat_path, json=CHAT) as response:
        parts = response.aiter_bytes()
        await anext(parts)
        await harness.gateway.close()
        rest = b"".join([part async for part in parts])
    assert sse_data(rest.decode())[0]["error"]["code"] == "ai_stopping"
    event = await harness.the_event()
    assert (event["status"], event["error_code"]) == ("cancelled", "ai_stopping")


async def test_of_many_clients_that_leave_each_call_is_cancelled_and_recorded(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("Hello"), None)

    async def leave() -> None:
        async with harness.http.stream("POST", harness.chat_path, json=CHAT) as response:
            await anext(response.aiter_bytes())

    await asyncio.gather(*[leave() for _ in range(60)])
    async with asyncio.timeout(20):
        await asyncio.gather(*[request.left.wait() for request in upstream.received])
    events = await harness.the_events()
    assert [event["status"] for event in events] == ["cancelled"] * 60
    assert {event["completion_tokens"] for event in events} == {2}


async def test_a_stream_that_goes_on_after_its_end_is_over(
    harness: Harness, upstream: Upstream
) -> None:
    """The provider closes neither the stream nor the connection."""
    upstream.script = stream(chunk("a", finish="stop"), DONE, None)
    async with asyncio.timeout(20):
        response = await harness.chat(stream=True)
    assert without_cost(response.content) == chunk("a", finish="stop") + DONE
    assert (await harness.the_event())["status"] == "ok"


async def test_a_client_that_leaves_while_a_retry_waits_ends_the_call(
    harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(429, RATE_LIMITED, {"retry-after": "5"})
    call = asyncio.create_task(harness.chat(stream=True))
    await upstream.arrived.wait()
    call.cancel()
    async with asyncio.timeout(20):
        event = await harness.the_event()
    assert (event["status"], event["attempts"], event["cost_nanos"]) == ("cancelled", 1, 0)
