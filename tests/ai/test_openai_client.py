"""The openai package as it is installed, with nothing but its base_url changed."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI
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
    upstream.script = answer(429, RATE_LIMITED, {"retry-after": "9"})
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "9"


async def test_each_try_of_a_client_that_tries_again_is_an_event(
    client: AsyncOpenAI, harness: Harness, upstream: Upstream
) -> None:
    upstream.script = answer(429, RATE_LIMITED, {"retry-after-ms": "1"})
    with pytest.raises(openai.RateLimitError):
        await client.with_options(max_retries=2).chat.completions.create(
            model="m", messages=MESSAGES
        )
    assert len(harness.events()) == len(upstream.received) == 3


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
