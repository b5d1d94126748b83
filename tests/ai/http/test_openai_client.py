"""The openai package as it is installed, with nothing but its base_url changed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.ai.conftest import Harness
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    EMBEDDINGS,
    RATE_LIMITED,
    USAGE,
    Upstream,
    answer,
    chunk,
    stream,
)
from tests.ai.wire.shapes_responses import RESPONSES

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(harness: Harness) -> AsyncIterator[AsyncOpenAI]:
    base_url = f"{harness.origin}{harness.path}"
    async with AsyncOpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
        yield client


async def test_a_completion(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = answer(200, COMPLETION)
    completion = await client.chat.completions.create(model="gpt-test", messages=MESSAGES)
    assert completion.choices[0].message.content == "Hello!"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 29


async def test_a_streamed_completion(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = stream(
        chunk("Hel"), chunk("lo"), chunk(finish="stop"), chunk(usage=USAGE), DONE
    )
    chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    texts = [c.choices[0].delta.content or "" async for c in chunks]
    assert "".join(texts) == "Hello"


async def test_a_streamed_completion_with_usage(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a", finish="stop"), chunk(usage=USAGE), DONE)
    chunks = await client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *_, last = [c async for c in chunks]
    assert last.usage is not None
    assert last.usage.prompt_tokens == 19


async def test_embeddings(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = answer(200, EMBEDDINGS)
    embeddings = await client.embeddings.create(model="embed-test", input="a")
    assert embeddings.data[0].embedding == [0.25, -0.5]


async def test_models(client: AsyncOpenAI, upstream: Upstream) -> None:
    models = [{"id": "gpt-test", "object": "model", "created": 1, "owned_by": "x"}]
    upstream.script = answer(200, {"object": "list", "data": models})
    assert [model.id async for model in client.models.list()] == ["gpt-test"]


async def test_a_rate_limit_is_its_own_class(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = answer(429, RATE_LIMITED, {"retry-after": "1"})
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"


async def test_each_try_of_a_client_that_tries_again_is_an_event(
    client: AsyncOpenAI, harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(429, RATE_LIMITED, {"retry-after-ms": "1"})
    with pytest.raises(openai.RateLimitError):
        await client.with_options(max_retries=2).chat.completions.create(
            model="m", messages=MESSAGES
        )
    assert len(await harness.the_events()) == 3
    # The gateway tries once more itself.
    assert [event["attempts"] for event in harness.events()] == [2, 2, 2]


async def test_a_refusal_of_ours_is_its_class_too(client: AsyncOpenAI, harness: Harness) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await client.chat.completions.create(
            model="m", messages=MESSAGES, extra_headers={"x-test-role": "anon"}
        )
    assert caught.value.code == "anonymous_ai_denied"


async def test_a_cut_stream_raises(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.script = stream(chunk("a"), cut=True)
    chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert (await anext(chunks)).choices[0].delta.content == "a"
    with pytest.raises(openai.APIError, match="stream ended before"):
        await anext(chunks)


async def test_leaving_a_stream_early_cancels_it(
    client: AsyncOpenAI, harness: Harness, upstream: Upstream
) -> None:
    upstream.script = stream(chunk("a"), None)
    chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    async for _ in chunks:
        break
    await chunks.close()
    assert (await harness.the_event())["status"] == "cancelled"


async def test_the_client_that_does_not_await(harness: Harness, upstream: Upstream) -> None:
    upstream.script = stream(chunk("Hel"), chunk("lo", finish="stop"), DONE)
    base_url = f"{harness.origin}{harness.path}"

    def ask() -> str:
        with OpenAI(api_key="any", base_url=base_url, max_retries=0) as client:
            chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            return "".join(c.choices[0].delta.content or "" for c in chunks)

    assert await asyncio.to_thread(ask) == "Hello"


@pytest.fixture(params=["openai", "openai_compatible"])
async def responding(request: pytest.FixtureRequest, harness: Harness, upstream: Upstream) -> Any:
    """The kind of the provider behind: one that has OpenAI's Responses itself, and one without."""
    provider = {"kind": request.param, "baseUrl": upstream.base_url}
    await harness.http.put(
        f"{harness.path}/ai/config",
        json={
            "providers": {"it": provider},
            "routes": [{"match": "*", "targets": [{"provider": "it"}]}],
        },
    )
    return request.param


async def test_a_response(
    client: AsyncOpenAI, harness: Harness, upstream: Upstream, responding: str
) -> None:
    upstream.script = answer(200, RESPONSES.body if responding == "openai" else COMPLETION)
    response = await client.responses.create(model="m", input="Hi")
    assert response.output_text == {"openai": "See here."}.get(responding, "Hello!")
    paths = {"openai": "/v1/responses", "openai_compatible": "/v1/chat/completions"}
    assert upstream.last.path == paths[responding]
    event = await harness.the_event()
    assert (event["endpoint"], event["usage_source"]) == ("responses", "reported")


async def test_a_streamed_response(
    client: AsyncOpenAI, harness: Harness, upstream: Upstream, responding: str
) -> None:
    chunks = [chunk("See "), chunk("here.", finish="stop"), chunk(usage=USAGE), DONE]
    pieces = [RESPONSES.stream] if responding == "openai" else chunks
    upstream.script = stream(*pieces)
    events = [e async for e in await client.responses.create(model="m", input="Hi", stream=True)]
    texts = [e.delta for e in events if e.type == "response.output_text.delta"]
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(texts) == last.response.output_text == "See here."
    assert (await harness.the_event())["status"] == "ok"


async def test_a_response_that_is_cut_raises(
    client: AsyncOpenAI, upstream: Upstream, responding: str
) -> None:
    begun = RESPONSES.stream[: RESPONSES.stream.index(b"event: response.output_text.done")]
    upstream.script = stream(begun if responding == "openai" else chunk("See "), cut=True)
    events = await client.responses.create(model="m", input="Hi", stream=True)
    with pytest.raises(openai.APIError, match="ended before"):
        async for _ in events:
            pass
