"""Embeddings: OpenAI's form for clients, and the forms of OpenAI and Google for providers.

OpenAI's vectors have the length one; Google's shortened ones do not, and are given it here.
https://platform.openai.com/docs/api-reference/embeddings
https://ai.google.dev/api/embeddings
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Raw, Struct

from butterbase.ai.errors import UpstreamInvalidError
from butterbase.ai.wire.decoding import decode_body, decode_upstream, present, read, unsupported
from butterbase.ai.wire.form import Usage
from butterbase.ai.wire.gemini.models import path
from butterbase.ai.wire.protocols import Kind, Target, UpstreamRequest
from butterbase.ai.wire.usage import ChatUsage, GeminiUsage

INPUT_COUNT_MAX = 2048
"""OpenAI's own limit for one request."""

_Tokens = Annotated[list[int], Meta(min_length=1)]


class EmbeddingRequest(Struct, frozen=True):
    model: str | None
    inputs: tuple[str | tuple[int, ...], ...]
    """Texts, or the numbers of their tokens."""
    dimensions: int | None = None
    is_base64: bool = False
    """The client wants its vectors as base64 of little-endian 32-bit floats."""
    user: str | None = None
    extra: dict[str, Raw] = {}


class EmbeddingAnswer(Struct, frozen=True):
    model: str
    vectors: "tuple[npt.NDArray[np.float32], ...]"
    """In the order of the inputs."""
    usage: Usage | None


class _Request(Struct, frozen=True):
    input: (
        str
        | Annotated[list[str | int | _Tokens], Meta(min_length=1, max_length=INPUT_COUNT_MAX * 128)]
    )
    model: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class _Embedding(Struct, frozen=True):
    embedding: list[float] | str
    index: int | None = None


class _Answer(Struct, frozen=True):
    data: list[_Embedding]
    model: str | None = None
    usage: ChatUsage | None = None


class _Values(Struct, frozen=True):
    values: list[float]


class _GeminiAnswer(Struct, frozen=True, rename="camel"):
    embeddings: list[_Values]
    usage_metadata: GeminiUsage | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_ANSWER = msgspec.json.Decoder(_Answer)
_GEMINI_ANSWER = msgspec.json.Decoder(_GeminiAnswer)


def decode_request(body: bytes) -> EmbeddingRequest:
    """Raises AiRequestError."""
    wire, fields = decode_body(_REQUEST, body)
    return EmbeddingRequest(
        model=wire.model,
        inputs=_inputs(wire.input),
        dimensions=wire.dimensions,
        is_base64=wire.encoding_format == "base64",
        user=wire.user,
        extra={n: raw for n, raw in fields.items() if n not in _Request.__struct_fields__},
    )


def _inputs(given: str | Sequence[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """A list of numbers is the tokens of one text."""
    if isinstance(given, str):
        return (given,)
    if all(isinstance(item, int) for item in given):
        return (tuple(item for item in given if isinstance(item, int)),)
    return tuple(_input(item) for item in given)


def _input(item: str | int | list[int]) -> str | tuple[int, ...]:
    if isinstance(item, str):
        return item
    if isinstance(item, int):
        raise unsupported("input", "texts and single numbers of tokens in one list")
    return tuple(item)


def encode_request(request: EmbeddingRequest, target: Target) -> UpstreamRequest:
    """Raises WireUnsupportedError."""
    if target.kind is Kind.ANTHROPIC:
        raise unsupported("model", "embeddings")
    if target.kind is Kind.GEMINI:
        return _encode_gemini(request, target)
    body = {
        "model": target.model,
        "input": list(request.inputs),
        "dimensions": request.dimensions,
        "encoding_format": "base64" if request.is_base64 else None,
        "user": request.user,
    }
    return UpstreamRequest("embeddings", msgspec.json.encode(present(body) | request.extra))


def _encode_gemini(request: EmbeddingRequest, target: Target) -> UpstreamRequest:
    """Always as a batch: it takes one text as well as many."""
    model = path(target.model)
    requests = []
    for given in request.inputs:
        if not isinstance(given, str):
            raise unsupported("input", "numbers of tokens", hint="send the text")
        asked: dict[str, Any] = {"model": model, "content": {"parts": [{"text": given}]}}
        if request.dimensions is not None:
            asked["outputDimensionality"] = request.dimensions
        requests.append(asked)
    body = msgspec.json.encode({"requests": requests})
    return UpstreamRequest(f"{model}:batchEmbedContents", body)


def decode_answer(request: EmbeddingRequest, target: Target, body: bytes) -> EmbeddingAnswer:
    """Raises UpstreamInvalidError."""
    if target.kind is Kind.GEMINI:
        gemini = decode_upstream(_GEMINI_ANSWER, body)
        vectors = [_unit(np.array(e.values, np.float32)) for e in gemini.embeddings]
        answer = EmbeddingAnswer(target.model, tuple(vectors), read(gemini.usage_metadata))
    else:
        wire = decode_upstream(_ANSWER, body)
        places = [place if e.index is None else e.index for place, e in enumerate(wire.data)]
        if sorted(places) != list(range(len(places))):
            raise UpstreamInvalidError("the embeddings are not numbered from 0")
        ordered = sorted(zip(places, wire.data, strict=True), key=lambda pair: pair[0])
        vectors = [_vector(embedding.embedding) for _, embedding in ordered]
        answer = EmbeddingAnswer(wire.model or target.model, tuple(vectors), read(wire.usage))
    if len(answer.vectors) != len(request.inputs):
        raise UpstreamInvalidError("there is not one embedding for each input")
    return answer


def _vector(embedding: list[float] | str) -> "npt.NDArray[np.float32]":
    """Asked for base64, some providers send numbers all the same."""
    if not isinstance(embedding, str):
        return np.array(embedding, np.float32)
    try:
        return np.frombuffer(b64decode(embedding, validate=True), "<f4").astype(np.float32)
    except ValueError as error:
        raise UpstreamInvalidError("an embedding is no base64 of 32-bit floats") from error


def _unit(vector: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return vector if length == 0.0 else (vector / length).astype(np.float32)


def encode_answer(answer: EmbeddingAnswer, request: EmbeddingRequest) -> bytes:
    usage = answer.usage or Usage()
    data = [
        {"object": "embedding", "index": index, "embedding": _render(vector, request)}
        for index, vector in enumerate(answer.vectors)
    ]
    total = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
    body = {"object": "list", "data": data, "model": answer.model, "usage": total}
    return msgspec.json.encode(body)


def _render(vector: "npt.NDArray[np.float32]", request: EmbeddingRequest) -> str | list[float]:
    if request.is_base64:
        return b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
