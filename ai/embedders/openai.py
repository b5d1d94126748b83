"""Embeddings over HTTP, from any endpoint that speaks OpenAI's `/embeddings`.

https://platform.openai.com/docs/api-reference/embeddings; Ollama, vLLM, text-embeddings-inference
and others answer the same request.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import httpx
import msgspec
import numpy as np
from httpx_aiohttp import HttpxAiohttpClient
from msgspec import Struct

from butterbase.ai.embedders.errors import (
    EmbedderRefusedError,
    EmbeddingMismatchError,
    TextsRefusedError,
)
from butterbase.ai.embedders.vectors import Vectors, sendable, unit
from butterbase.ai.http.body import decode_json
from butterbase.projections.embedder import BatchLimits, EmbedderError, EmbeddingModel

REQUEST_TEXTS_MAX = 128
REQUEST_CHARS_MAX = 250_000
"""Of one request's texts, unless one alone is longer: providers limit the tokens of a request."""
ANSWER_BYTES_MAX = 64 * 1024**2
ATTEMPT_COUNT_MAX = 4
BACKOFF_S = 0.5
BUSY_S = 1.0
"""To leave a provider alone that has too many requests and says no time."""
BACKOFF_S_MAX = 16.0
RETRY_AFTER_S_MAX = 60.0
"""A provider that wants a longer rest is given up on: the caller knows better what to do."""
REASON_CHARS_MAX = 200
RETRIED_STATUSES = frozenset({408, 409, 429})
REFUSED_TEXTS_STATUSES = frozenset({400, 413, 422})


class _Embedding(Struct, frozen=True):
    embedding: list[float]
    index: int | None = None


class _Answer(Struct, frozen=True):
    data: list[_Embedding]


class _Failure(Struct, frozen=True):
    message: str = ""


class _FailedAnswer(Struct, frozen=True):
    error: _Failure | str = ""


class _TransientError(EmbedderError):
    """The embedding provider cannot answer now."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, is_busy: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s or 0.0
        self.is_busy = is_busy


_HINTS = {
    401: "check the embedder's API key",
    403: "check what the embedder's API key may do",
    404: "check that the embedder's URL ends with /v1, and the model's name",
}
_ANSWER = msgspec.json.Decoder(_Answer)
_FAILED_ANSWER = msgspec.json.Decoder(_FailedAnswer)


class OpenAIEmbedder:
    """An Embedder. With no `client` it opens one of its own, and closes it.

    `base_url` goes up to and with `/v1`. `shorten` asks for `dimensions`, which only models that
    can shorten their vectors understand; in either case other dimensions are refused.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        dimensions: int,
        api_key: str | None = None,
        shorten: bool = False,
        timeout_s: float = 60.0,
        client: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises EmbedderRefusedError for a URL or key that cannot be used."""
        self._url = _endpoint(base_url)
        self._host = self._url.netloc.decode()
        self._model = EmbeddingModel(name=model, dimensions=dimensions)
        self._shorten = shorten
        self._api_key = _checked_key(api_key)
        self._timeout_s = timeout_s
        # httpx's own transport slows down with the number of requests in flight.
        self._client = client or HttpxAiohttpClient()
        self._owns_client = client is None
        self._sleep = sleep

    @property
    def model(self) -> EmbeddingModel:
        return self._model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def limits(self) -> BatchLimits:
        return BatchLimits()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit-length row per text, in order; any number of texts.

        Raises EmbedderRefusedError, EmbeddingMismatchError; EmbedderError after the last attempt.
        """
        vectors = np.empty((len(texts), self._model.dimensions), np.float32)
        for start, end in requests(texts):
            vectors[start:end] = await self._embedded(texts[start:end])
        return vectors

    async def close(self) -> None:
        if self._owns_client:
            await self._client.aclose()

    async def _embedded(self, texts: Sequence[str]) -> Vectors:
        for attempt in range(1, ATTEMPT_COUNT_MAX + 1):
            try:
                return unit_vectors(await self._answer(texts), len(texts), self._model)
            except _TransientError as error:
                if attempt == ATTEMPT_COUNT_MAX or error.retry_after_s > RETRY_AFTER_S_MAX:
                    failure = EmbedderError(f"{error.message} (attempt {attempt})")
                    failure.retry_after_s = error.retry_after_s or BUSY_S * error.is_busy
                    raise failure from error
                jitter = random.random()  # noqa: S311  it spreads retries and keeps no secret
                await self._sleep(delay_s(attempt, error.retry_after_s, jitter))
        raise AssertionError("the last attempt returns or raises")

    async def _answer(self, texts: Sequence[str]) -> bytes:
        try:
            # httpx limits each step; this limits them all, against an answer that only trickles.
            async with asyncio.timeout(self._timeout_s), self._response(texts) as response:
                status, headers = response.status_code, response.headers
                body = await _read(response)
        except TimeoutError:
            raise _TransientError(f"{self._host} sent no answer in {self._timeout_s:g} s") from None
        # The adapter lets some of aiohttp's own errors through. Neither is chained: they carry
        # the request, and so the key.
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            fault = type(error.__cause__ or error).__name__
            raise _TransientError(f"the connection to {self._host} failed: {fault}") from None
        if status == httpx.codes.OK:
            return body
        message = f"{self._host} answered {status}{self._reason(body)}"
        if status in RETRIED_STATUSES or status >= 500:
            raise _TransientError(
                message,
                retry_after_s=parse_retry_after(headers.get("retry-after", ""), datetime.now(UTC)),
                is_busy=status == httpx.codes.TOO_MANY_REQUESTS,
            )
        refusal = TextsRefusedError if status in REFUSED_TEXTS_STATUSES else EmbedderRefusedError
        raise refusal(message, hint=_HINTS.get(status))

    def _response(self, texts: Sequence[str]) -> AbstractAsyncContextManager[httpx.Response]:
        request: dict[str, object] = {
            "model": self._model.name,
            "input": [sendable(text) for text in texts],
            "encoding_format": "float",
        }
        if self._shorten:
            request["dimensions"] = self._model.dimensions
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return self._client.stream(
            "POST",
            self._url,
            content=msgspec.json.encode(request),
            headers=headers,
            timeout=self._timeout_s,
            follow_redirects=False,  # the key goes to no other host
        )

    def _reason(self, body: bytes) -> str:
        """The provider's own words: short, and without the key it may quote."""
        try:
            error = _FAILED_ANSWER.decode(body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        reason = error if isinstance(error, str) else error.message
        if self._api_key:
            reason = reason.replace(self._api_key, "…")
        return f": {reason[:REASON_CHARS_MAX]}" if reason else ""


def requests(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Bounds of slices that each fit one request, in order."""
    start = char_count = 0
    for index, text in enumerate(texts):
        full = index - start == REQUEST_TEXTS_MAX or char_count + len(text) > REQUEST_CHARS_MAX
        if full and index > start:
            yield start, index
            start, char_count = index, 0
        char_count += len(text)
    if start < len(texts):
        yield start, len(texts)


def delay_s(attempt: int, retry_after_s: float | None, jitter: float) -> float:
    """How long to wait after this attempt, the first being 1; `jitter` is from 0 to 1.

    Never less than the provider asked for.
    """
    backoff = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** (attempt - 1)) * (1 + jitter) / 2
    return (retry_after_s or 0.0) + backoff


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Seconds, of `Retry-After: 20` or of a date; None where it says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date that does not know its zone ("-0000") is in UTC.
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _not_one(reason: str) -> EmbeddingMismatchError:
    return EmbeddingMismatchError(f"the answer is not one of /embeddings: {reason}")


def unit_vectors(answer: bytes, count: int, model: EmbeddingModel) -> Vectors:
    """The answer's vectors in the order of the texts. Raises EmbeddingMismatchError."""
    data = decode_json(_ANSWER, answer, _not_one).data
    # Some servers leave out an index of zero, or all.
    placed = {
        position if item.index is None else item.index: item.embedding
        for position, item in enumerate(data)
    }
    if len(data) != count or placed.keys() != set(range(count)):
        raise EmbeddingMismatchError(f"{count} texts were sent and {len(data)} vectors came back")
    for embedding in placed.values():
        if len(embedding) != model.dimensions:
            raise EmbeddingMismatchError(
                f"the model {model.name} answers with {len(embedding)} dimensions,"
                f" not {model.dimensions}",
                hint="vectors of different lengths are never mixed; set the model's dimensions",
            )
    return unit(np.array([placed[index] for index in range(count)], np.float64), model.name)


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise EmbeddingMismatchError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _endpoint(base_url: str) -> httpx.URL:
    # What is wrong is said without the URL: it may hold a password.
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise EmbedderRefusedError("the embedder's URL is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise EmbedderRefusedError("the embedder's URL must begin with http:// or https://")
    if url.userinfo or url.query or url.fragment:
        raise EmbedderRefusedError(
            "the embedder's URL must have no user, query or fragment",
            hint="the key is a setting of its own",
        )
    return url.copy_with(path=url.path.rstrip("/") + "/embeddings")


def _checked_key(api_key: str | None) -> str | None:
    if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise EmbedderRefusedError("the embedder's API key has characters that no key has")
    return api_key
