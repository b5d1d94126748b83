"""Embeddings in OpenAI's form, from OpenAI's and Google's."""

import json
import math
from typing import Any

import numpy as np
import pytest

from butterbase.ai.errors import AiRequestError, UpstreamInvalidError, WireUnsupportedError
from butterbase.ai.wire.embeddings import (
    EmbeddingAnswer,
    EmbeddingRequest,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from butterbase.ai.wire.form import Usage
from butterbase.ai.wire.protocols import Kind, Target
from tests.ai.wire.clients import JSON, Respond, openai_client
from tests.ai.wire.shaping import Json, dumps

OPENAI = Target(Kind.OPENAI, "text-embedding-3-small")
GEMINI = Target(Kind.GEMINI, "gemini-embedding-001")
VECTORS = [[0.6, 0.8], [1.0, 0.0]]


def openai_answer(vectors: list[Any]) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return dumps({"object": "list", "data": data, "model": "e-3", "usage": usage})


def gemini_answer(vectors: list[list[float]], **more: object) -> bytes:
    return dumps({"embeddings": [{"values": vector} for vector in vectors], **more})


def sent(request: EmbeddingRequest, target: Target) -> Json:
    body: Json = json.loads(encode_request(request, target).body)
    return body


def request(**fields: object) -> EmbeddingRequest:
    return decode_request(dumps({"model": "m", "input": ["a", "b"], **fields}))


def test_a_request_to_openai() -> None:
    asked = request(dimensions=2, encoding_format="base64", user="u", odd=1)
    assert encode_request(asked, OPENAI).path == "embeddings"
    assert sent(asked, OPENAI) == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 2,
        "encoding_format": "base64",
        "user": "u",
        "odd": 1,
    }


def test_a_request_to_gemini() -> None:
    made = encode_request(request(dimensions=2), GEMINI)
    assert made.path == "models/gemini-embedding-001:batchEmbedContents"
    model = "models/gemini-embedding-001"
    assert json.loads(made.body) == {
        "requests": [
            {"model": model, "content": {"parts": [{"text": text}]}, "outputDimensionality": 2}
            for text in ("a", "b")
        ]
    }


def test_tokens_are_texts_of_their_own() -> None:
    assert request(input=[1, 2]).inputs == ((1, 2),)
    assert request(input=[[1, 2], [3]]).inputs == ((1, 2), (3,))
    assert sent(request(input=[[1, 2], [3]]), OPENAI)["input"] == [[1, 2], [3]]
    with pytest.raises(WireUnsupportedError):
        encode_request(request(input=[1, 2]), GEMINI)


@pytest.mark.parametrize("fields", [{"input": []}, {"input": None}, {"input": ["a", 1]},
                                    {"dimensions": 0}, {"encoding_format": "odd"}])  # fmt: skip
def test_what_is_no_request(fields: Json) -> None:
    with pytest.raises(AiRequestError):
        request(**fields)


def test_anthropic_has_no_embeddings() -> None:
    with pytest.raises(WireUnsupportedError):
        encode_request(request(), Target(Kind.ANTHROPIC, "claude-opus-5"))


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    ("target", "body"),
    [
        (OPENAI, openai_answer(VECTORS)),
        # 0.6 and 0.8, 1 and 0, as little-endian floats of 32 bits.
        (OPENAI, openai_answer(["mpkZP83MTD8=", "AACAPwAAAAA="])),
        (GEMINI, gemini_answer([[3.0, 4.0], [0.5, 0.0]], usageMetadata={"promptTokenCount": 4})),
    ],
)
def test_openais_client_reads_the_vectors(target: Target, body: bytes, encoding: Any) -> None:
    def respond(sent_body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked = decode_request(sent_body)
        return 200, JSON, encode_answer(decode_answer(asked, target, body), asked)

    answer = _create(respond, encoding)
    for embedding, expected in zip(answer.data, VECTORS, strict=True):
        read = embedding.embedding
        if isinstance(read, str):
            read = np.frombuffer(__import__("base64").b64decode(read), "<f4").tolist()
        assert read == pytest.approx(expected, abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4


def _create(respond: Respond, encoding: Any) -> Any:
    with openai_client(respond) as client:
        return client.embeddings.create(model="m", input=["a", "b"], encoding_format=encoding)


def test_vectors_come_in_the_order_of_their_texts() -> None:
    body = json.loads(openai_answer(VECTORS))
    body["data"].reverse()
    answer = decode_answer(request(), OPENAI, dumps(body))
    assert answer.vectors[0].tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (OPENAI, openai_answer(VECTORS[:1])),
        (OPENAI, b"{}"),
        (OPENAI, openai_answer(["AAA", "AACAPwAAAAA="])),
        (OPENAI, openai_answer(VECTORS).replace(b'"index":1', b'"index":0')),
        (GEMINI, gemini_answer(VECTORS[:1])),
    ],
)
def test_what_is_no_answer(target: Target, body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        decode_answer(request(), target, body)


def test_a_vector_of_nothing_stays_one() -> None:
    answer = decode_answer(request(input="a"), GEMINI, gemini_answer([[0.0, 0.0]]))
    assert answer.vectors[0].tolist() == [0.0, 0.0]
    assert answer.usage is None


def test_floats_are_written_short() -> None:
    vectors = (np.array([0.1, 1 / 3], np.float32),)
    made = encode_answer(EmbeddingAnswer("e", vectors, Usage()), request(input="a"))
    numbers = json.loads(made)["data"][0]["embedding"]
    assert np.array(numbers, np.float32).tolist() == vectors[0].tolist()
    assert all(math.isfinite(number) for number in numbers)
