"""What is found for questions that people ask, with the real local model; see retrieval.json."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from butterbase.ai.embedders.local import LocalEmbedder
from tests.ai.rag.published import Published, Text
from tests.api.conftest import MODELS_DIR

DATA = json.loads((Path(__file__).parents[2] / "data" / "retrieval.json").read_text())
PASSAGES: dict[str, str] = DATA["passages"]
QUESTIONS: dict[str, list[str]] = DATA["questions"]
DEPTH = 10


def ndcg(found: Sequence[str], relevant: Sequence[str]) -> float:
    """How near the relevant ones are to the beginning: 1 at best."""
    gains = [1 / math.log2(rank + 2) for rank in range(DEPTH)]
    gained = sum(gain for name, gain in zip(found, gains, strict=False) if name in relevant)
    return gained / sum(gains[: len(relevant)])


async def test_both_halves_together_find_more_than_either(passages: Published) -> None:
    embedder = LocalEmbedder.load(MODELS_DIR, threads=1)
    vectors = await embedder.embed(list(PASSAGES.values()))
    asked = dict(zip(QUESTIONS, await embedder.embed(list(QUESTIONS)), strict=True))
    await embedder.close()
    texts = [
        Text(content, vector.astype(float))
        for content, vector in zip(PASSAGES.values(), vectors, strict=True)
    ]
    passages.collection("manual", texts)
    names = list(PASSAGES)
    means = {}
    for mode in ("hybrid", "vector", "text"):
        scores = []
        for question, relevant in QUESTIONS.items():
            found = passages.found(
                "manual", query=question, embedding=asked[question], mode=mode, top_k=DEPTH
            )
            scores.append(ndcg([names[place] for place in found], relevant))
        means[mode] = sum(scores) / len(scores)
    print(means)  # noqa: T201  shown where it fails
    assert means["hybrid"] > means["vector"]
    assert means["hybrid"] > means["text"]
    assert means["hybrid"] == pytest.approx(0.9, abs=0.1)


KINDS = {
    "Invoice 2023-{:04} of {} is paid by the end of May.": "is invoice 2023-{:04} paid",
    "Person{} lives in {} and works as a baker.": "where does Person{} live",
    "Error E{}: the disk in {} has failed. Call support.": "what to do about error E{}",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_only_its_number_tells_from_others_is_found_first(
    passages: Published, kind: str
) -> None:
    towns = ["Berlin", "Paris", "Rome", "Oslo", "Lisbon"]
    contents = [kind.format(number, towns[number % 5]) for number in range(120)]
    asked = {number: KINDS[kind].format(number) for number in range(3, 120, 13)}
    embedder = LocalEmbedder.load(MODELS_DIR, threads=1)
    vectors = await embedder.embed([*contents, *asked.values()])
    await embedder.close()
    texts = [Text(c, v.astype(float)) for c, v in zip(contents, vectors, strict=False)]
    passages.collection("alike", texts)
    first = {
        mode: [
            passages.found("alike", query=question, embedding=vector, mode=mode, top_k=1)[0]
            for question, vector in zip(asked.values(), vectors[len(texts) :], strict=True)
        ]
        for mode in ("hybrid", "vector")
    }
    assert first["hybrid"] == list(asked)
    assert first["vector"] != list(asked)
