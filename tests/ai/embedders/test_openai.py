"""The HTTP embedder against a provider on loopback that fails in many ways."""

import logging
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.embedders import openai
from butterbase.ai.embedders.errors import EmbedderRefusedError, EmbeddingMismatchError
from butterbase.ai.embedders.openai import (
    REQUEST_CHARS_MAX,
    OpenAIEmbedder,
    delay_s,
    parse_retry_after,
    requests,
)
from butterbase.projections.embedder import Embedder, EmbedderError
from tests.ai.embedders.provider import (
    DIMENSIONS,
    HALF,
    SILENCE,
    Provider,
    http,
    provider,
    vector,
    vectors,
)

KEY = "sk-test-0123456789abcdef"


class Pauses:
    """Stands in for sleeping: keeps what was asked for and returns at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def upstream() -> AsyncIterator[Provider]:
    async with provider() as upstream:
        yield upstream


@pytest.fixture
async def embedder(upstream: Provider, pauses: Pauses) -> AsyncIterator[Embedder]:
    embedder = OpenAIEmbedder(
        base_url=upstream.base_url,
        model="small",
        dimensions=DIMENSIONS,
        api_key=KEY,
        timeout_s=5.0,
        sleep=pauses,
    )
    yield embedder
    await embedder.close()


def data(*rows: object) -> bytes:
    return http(200, msgspec.json.encode({"data": rows}))


async def test_rows_are_in_order_and_of_unit_length(embedder: Embedder, upstream: Provider) -> None:
    texts = ["one", "two", "seven", "Äpfel 🍏"]
    rows = await embedder.embed(texts)
    expected = np.array([vector(text) for text in texts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    (request,) = upstream.requests
    assert request.line == "POST /v1/embeddings HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {"model": "small", "input": texts, "encoding_format": "float"}


async def test_many_texts_are_several_requests(embedder: Embedder, upstream: Provider) -> None:
    texts = [f"{number}" for number in range(300)]
    rows = await embedder.embed(texts)
    assert [len(request.texts) for request in upstream.requests] == [128, 128, 44]
    (last,) = await embedder.embed(["299"])
    np.testing.assert_array_equal(rows[299], last)


async def test_no_texts_are_no_request(embedder: Embedder, upstream: Provider) -> None:
    assert (await embedder.embed([])).shape == (0, DIMENSIONS)
    assert upstream.requests == []


async def test_texts_that_cannot_be_sent_are_replaced(
    embedder: Embedder, upstream: Provider
) -> None:
    await embedder.embed(["", "half \ud800"])
    assert upstream.requests[0].texts == [" ", "half ?"]


async def test_a_client_of_the_caller_is_used_and_left_open(upstream: Provider) -> None:
    async with httpx.AsyncClient() as client:
        embedder = OpenAIEmbedder(
            base_url=f"{upstream.base_url}/", model="m", dimensions=3, shorten=True, client=client
        )
        upstream.replies.append(partial(vectors, dimensions=3))
        await embedder.embed(["text"])
        await embedder.close()
        assert not client.is_closed
    (request,) = upstream.requests
    assert request.body["dimensions"] == 3
    assert "authorization" not in request.headers


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_a_passing_failure_is_tried_again(
    status: int, embedder: Embedder, upstream: Provider, pauses: Pauses
) -> None:
    upstream.replies += [http(status), http(status)]
    assert (await embedder.embed(["text"])).shape == (1, DIMENSIONS)
    assert len(upstream.requests) == 3
    assert 0.25 <= pauses.seconds[0] <= 0.5 <= pauses.seconds[1] <= 1.0


async def test_retry_after_is_honoured(
    embedder: Embedder, upstream: Provider, pauses: Pauses
) -> None:
    upstream.replies.append(http(429, retry_after="7"))
    await embedder.embed(["text"])
    assert len(pauses.seconds) == 1
    assert 7 <= pauses.seconds[0] <= 7.5


async def test_a_provider_that_wants_a_long_rest_is_given_up_on(
    embedder: Embedder, upstream: Provider, pauses: Pauses
) -> None:
    upstream.replies.append(http(429, retry_after="3600"))
    with pytest.raises(EmbedderError, match="answered 429"):
        await embedder.embed(["text"])
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (http(500, b'{"error": {"message": "overloaded"}}'), "answered 500: overloaded"),
        (SILENCE, "sent no answer"),
        (HALF, "sent no answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "failed"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope", "failed"),
    ],
)
async def test_a_lasting_failure_ends_after_four_attempts(
    reply: bytes, message: str, upstream: Provider, pauses: Pauses
) -> None:
    embedder = OpenAIEmbedder(
        base_url=upstream.base_url, model="m", dimensions=4, timeout_s=0.4, sleep=pauses
    )
    upstream.replies += [reply] * 5
    with pytest.raises(EmbedderError, match=f"{message}.*attempt 4") as raised:
        await embedder.embed(["text"])
    await embedder.close()
    assert raised.value.code == "embedder_unavailable"
    assert len(pauses.seconds) == 3
    assert len(upstream.replies) == 1


async def test_a_provider_that_is_not_there_is_an_embedder_error(pauses: Pauses) -> None:
    async with provider() as gone:
        pass
    embedder = OpenAIEmbedder(base_url=gone.base_url, model="m", dimensions=4, sleep=pauses)
    with pytest.raises(EmbedderError, match=r"connection to .* failed: ClientConn"):
        await embedder.embed(["text"])
    await embedder.close()


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
async def test_a_refusal_is_not_tried_again(
    status: int, embedder: Embedder, upstream: Provider
) -> None:
    upstream.replies.append(http(status, b'{"error": "no"}', location="http://127.0.0.1:1/"))
    with pytest.raises(EmbedderRefusedError, match=f"answered {status}: no"):
        await embedder.embed(["text"])
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [401, 500])
async def test_the_key_is_in_no_error_and_no_log(
    status: int, embedder: Embedder, upstream: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    said = msgspec.json.encode({"error": {"message": f"Incorrect API key provided: {KEY}."}})
    upstream.replies += [http(status, said)] * 4
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(EmbedderError, match="Incorrect API key provided: …") as raised,
    ):
        await embedder.embed(["text"])
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert KEY not in caplog.text
    assert KEY not in repr(embedder)


@pytest.mark.parametrize(
    "reply",
    [
        http(200, b"<html>not found</html>"),
        http(200, b'{"data": null}'),
        http(200, b'{"data": [{"index": 0, "embedding": [1, 2, NaN, 4]}]}'),
        http(200, b'{"data": [{"index": 0, "embedding": [1, 2, 1e999, 4]}]}'),
        data(),
        data({"index": 0, "embedding": [0, 0, 0, 0]}),
        data({"index": 0, "embedding": [1e200, 1e200, 1e200, 1e200]}),
        data({"index": 0, "embedding": ["1", "2", "3", "4"]}),
        data({"index": 1, "embedding": [1, 2, 3, 4]}),
        data({"index": 0, "embedding": [1, 2, 3]}),
        data(*[{"index": index, "embedding": [1, 2, 3, 4]} for index in (0, 1)]),
        data(*[{"index": 0, "embedding": [1, 2, 3, 4]}] * 2),
        http(200, b'{"x": ' + b"[" * 100_000),
    ],
)
async def test_an_answer_that_is_not_vectors_is_refused(
    reply: bytes, embedder: Embedder, upstream: Provider
) -> None:
    upstream.replies.append(reply)
    with pytest.raises(EmbeddingMismatchError):
        await embedder.embed(["text"])
    assert len(upstream.requests) == 1


async def test_other_dimensions_are_refused(embedder: Embedder, upstream: Provider) -> None:
    upstream.replies.append(partial(vectors, dimensions=6))
    with pytest.raises(EmbeddingMismatchError, match="6 dimensions, not 4"):
        await embedder.embed(["text"])


async def test_an_answer_without_indexes_is_in_order(
    embedder: Embedder, upstream: Provider
) -> None:
    upstream.replies.append(data({"embedding": [1, 0, 0, 0]}, {"embedding": [0, 2, 0, 0]}))
    rows = await embedder.embed(["a", "b"])
    np.testing.assert_array_equal(rows, [[1, 0, 0, 0], [0, 1, 0, 0]])


async def test_an_answer_that_does_not_end_is_cut_off(
    embedder: Embedder, upstream: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "ANSWER_BYTES_MAX", 1000)
    upstream.replies.append(http(200, b" " * 1001))
    with pytest.raises(EmbeddingMismatchError, match="longer than 1000 bytes"):
        await embedder.embed(["text"])


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "localhost:11434/v1",
        "ftp://host/v1",
        "http://",
        "http://host:hunter2/v1",
        "https://u:hunter2@host/v1",
        "https://host/v1?key=hunter2",
        "https://host/v1#hunter2",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_repeated(base_url: str) -> None:
    with pytest.raises(EmbedderRefusedError) as raised:
        OpenAIEmbedder(base_url=base_url, model="m", dimensions=4)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("api_key", ["sk-hunter2\n", "sk hunter2", "sk-hünter2", "\x00hunter2"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(api_key: str) -> None:
    with pytest.raises(EmbedderRefusedError) as raised:
        OpenAIEmbedder(base_url="https://host/v1", model="m", dimensions=4, api_key=api_key)
    assert "nter2" not in "".join(traceback.format_exception(raised.value))


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(1, 50), st.none() | st.floats(0, 60), st.floats(0, 1))
def test_a_delay_is_bounded_and_no_shorter_than_asked_for(
    attempt: int, retry_after_s: float | None, jitter: float
) -> None:
    asked_for = retry_after_s or 0
    assert asked_for + 0.25 <= delay_s(attempt, retry_after_s, jitter) <= asked_for + 16


@given(st.lists(st.integers(0, REQUEST_CHARS_MAX + 9), max_size=300))
def test_requests_hold_every_text_once_within_the_limits(lengths: list[int]) -> None:
    text = "x" * (REQUEST_CHARS_MAX + 9)
    texts = [text[:length] for length in lengths]
    bounds = list(requests(texts))
    assert [index for start, end in bounds for index in range(start, end)] == list(
        range(len(texts))
    )
    for start, end in bounds:
        assert 1 <= end - start <= 128
        assert end - start == 1 or sum(lengths[start:end]) <= REQUEST_CHARS_MAX
