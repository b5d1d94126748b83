"""The anthropic package as it is installed, with nothing but its base_url changed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.ai.conftest import Harness
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    RATE_LIMITED,
    USAGE,
    Script,
    Upstream,
    answer,
    chunk,
    stream,
)
from tests.ai.wire.shapes_anthropic import ANTHROPIC_TEXT, ANTHROPIC_TOOLS

ASKED: Any = {
    "model": "claude",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hi"}],
}
OVERLOADED = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
    "request_id": "req_1",
}


@pytest.fixture
async def client(harness: Harness) -> AsyncIterator[AsyncAnthropic]:
    base_url = f"{harness.origin}{harness.path}"
    async with AsyncAnthropic(api_key="any", base_url=base_url, max_retries=0) as client:
        yield client


@pytest.fixture(params=["anthropic", "openai"])
async def claude(request: pytest.FixtureRequest, harness: Harness, upstream: Upstream) -> Any:
    """The wire of the provider behind: the client's own, and another."""
    kind = {"anthropic": "anthropic", "openai": "openai_compatible"}[request.param]
    provider = {"kind": kind, "baseUrl": upstream.base_url, "apiKey": "sk-provider"}
    targets = [{"provider": "it", "model": "served"}]
    response = await harness.http.put(
        f"{harness.path}/ai/config",
        json={
            "providers": {"it": provider},
            "routes": [{"match": "claude", "targets": targets, "retries": {"count": 0}}],
        },
    )
    assert response.status_code == 200
    return request.param


def said(wire: str) -> Script:
    return answer(200, ANTHROPIC_TEXT.body if wire == "anthropic" else COMPLETION)


async def test_a_message(
    client: AsyncAnthropic, harness: Harness, upstream: Upstream, claude: str
) -> None:
    upstream.script = said(claude)
    message = await client.messages.create(**ASKED)
    texts = {"anthropic": "Hello there.", "openai": "Hello!"}
    assert [block.text for block in message.content if block.type == "text"] == [texts[claude]]
    tokens = {"anthropic": 40, "openai": 10}
    assert message.usage.output_tokens == tokens[claude]
    assert upstream.last.json()["model"] == "served"
    event = await harness.the_event()
    assert (event["endpoint"], event["completion_tokens"]) == ("messages", tokens[claude])


async def test_a_streamed_message(
    client: AsyncAnthropic, harness: Harness, upstream: Upstream, claude: str
) -> None:
    chunks = [chunk("Hello"), chunk(" there."), chunk(finish="stop"), chunk(usage=USAGE), DONE]
    pieces = [ANTHROPIC_TEXT.stream] if claude == "anthropic" else chunks
    upstream.script = stream(*pieces)
    async with client.messages.stream(**ASKED) as events:
        texts = [text async for text in events.text_stream]
        message = await events.get_final_message()
    assert "".join(texts) == "Hello there."
    assert message.usage.output_tokens == {"anthropic": 40, "openai": 10}[claude]
    assert (await harness.the_event())["status"] == "ok"


async def test_the_client_that_does_not_await(harness: Harness, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    base_url = f"{harness.origin}{harness.path}"

    def ask() -> str:
        with Anthropic(api_key="any", base_url=base_url, max_retries=0) as client:
            block = client.messages.create(**ASKED).content[0]
            return block.text if block.type == "text" else ""

    assert await asyncio.to_thread(ask) == "Hello!"


async def test_tools_pass_untouched(
    client: AsyncAnthropic, upstream: Upstream, harness: Harness
) -> None:
    await harness.http.put(
        f"{harness.path}/ai/config",
        json={
            "providers": {"it": {"kind": "anthropic", "baseUrl": upstream.base_url}},
            "routes": [{"match": "*", "targets": [{"provider": "it"}]}],
        },
    )
    upstream.script = answer(200, ANTHROPIC_TOOLS.body)
    tool: Any = {"name": "weather", "input_schema": {"type": "object"}, "x_new": True}
    message = await client.messages.create(
        **ASKED, tools=[tool], extra_headers={"anthropic-beta": "new-2026-01-01"}
    )
    assert "tool_use" in {block.type for block in message.content}
    assert upstream.last.json()["tools"] == [tool]
    assert upstream.last.headers["anthropic-beta"] == "new-2026-01-01"


async def test_a_stream_that_is_cut_raises(
    client: AsyncAnthropic, harness: Harness, upstream: Upstream, claude: str
) -> None:
    begun = ANTHROPIC_TEXT.stream[: ANTHROPIC_TEXT.stream.index(b" there.")]
    pieces = [begun] if claude == "anthropic" else [chunk("Hello")]
    upstream.script = stream(*pieces, cut=True)
    async with client.messages.stream(**ASKED) as events:
        with pytest.raises(anthropic.APIStatusError, match="ended before"):
            await events.until_done()
    assert (await harness.the_event())["error_code"] == "upstream_stream_cut"


async def test_a_rate_limit_raises_its_own_class_with_retry_after(
    client: AsyncAnthropic, upstream: Upstream, claude: str
) -> None:
    limited = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}
    body = limited if claude == "anthropic" else RATE_LIMITED
    upstream.script = answer(429, body, {"retry-after": "20"})
    with pytest.raises(anthropic.RateLimitError) as error:
        await client.messages.create(**ASKED)
    assert error.value.response.headers["retry-after"] == "20"
    if claude == "anthropic":
        assert error.value.body == limited


async def test_an_overloaded_provider_is_told_as_anthropic_does(
    client: AsyncAnthropic, harness: Harness, upstream: Upstream, claude: str
) -> None:
    upstream.script = answer(529 if claude == "anthropic" else 503, OVERLOADED)
    with pytest.raises(anthropic.APIStatusError) as error:
        await client.messages.create(**ASKED)
    assert error.value.status_code == 529


async def test_a_wrong_request_raises_its_own_class(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await client.messages.create(**{**ASKED, "messages": []})


async def test_the_models(client: AsyncAnthropic, upstream: Upstream) -> None:
    upstream.script = answer(200, {"data": [{"id": "a"}, {"id": "b"}]})
    assert [model.id async for model in client.models.list()] == ["a", "b"]
    assert (await client.models.retrieve("b")).id == "b"


async def test_a_client_that_leaves_cancels_the_provider(
    client: AsyncAnthropic, harness: Harness, upstream: Upstream, claude: str
) -> None:
    begun = ANTHROPIC_TEXT.stream[: ANTHROPIC_TEXT.stream.index(b" there.") - 60]
    upstream.script = stream(begun if claude == "anthropic" else chunk("Hello"), None)
    events = await client.messages.create(**ASKED, stream=True)
    async for _ in events:
        break
    await events.close()
    async with asyncio.timeout(20):
        await upstream.last.left.wait()
    event = await harness.the_event()
    assert (event["status"], event["usage_source"]) == ("cancelled", "estimated")
