"""The local model against the reference, with its real weights; they must be installed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from butterbase.ai.embedders import minilm
from butterbase.ai.embedders.local import SLICE_TEXTS_MAX, LocalEmbedder, batches
from butterbase.projections.chunking import chunk
from butterbase.projections.embedder import Embedder, EmbedderError
from tests.ai.embedders.reference import Array, Reference

LONG = "Every change of a table is a record in the log, and the log is read in order. " * 20


@pytest.fixture(scope="module")
def cache_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase-tests-") as directory:
        yield Path(directory)


@pytest.fixture
async def embedder(cache_dir: Path) -> AsyncIterator[Embedder]:
    embedder = LocalEmbedder.load(cache_dir, threads=1)
    yield embedder
    await embedder.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm.model_dir() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.fixture(scope="module")
def reference() -> Reference:
    weights = load_file(minilm.model_dir() / "model.safetensors")
    return Reference(weights, layer_count=6, head_count=12)


def expected(reference: Reference, tokenizer: Tokenizer, text: str) -> Array:
    ids = tokenizer.encode(text).ids
    if len(ids) > 256:
        ids = [*ids[:255], ids[-1]]
    return reference.vector(ids)


TEXTS = [
    "How do I restore a backup?",
    "",
    "   \n\t ",
    "Müßige Füchse — naïve café № 5",
    "数据库的复制槽",
    "🦊 🚀 emoji and ﬁ ligatures",
    "x" * 300,
    "a\x00b\x07c",
    "word " * 1000,
]


async def test_vectors_equal_the_reference(
    embedder: Embedder, reference: Reference, tokenizer: Tokenizer
) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    cosines = [
        vector @ expected(reference, tokenizer, text)
        for vector, text in zip(vectors, TEXTS, strict=True)
    ]
    assert min(cosines) > 0.99999


async def test_vectors_have_unit_length(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    texts = [f"{'and on ' * (number % 13)} line {number}" for number in range(SLICE_TEXTS_MAX + 9)]
    together = await embedder.embed(texts)
    for index in (0, 12, SLICE_TEXTS_MAX - 1, SLICE_TEXTS_MAX, SLICE_TEXTS_MAX + 8):
        (alone,) = await embedder.embed([texts[index]])
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "paraphrase", "unrelated"),
    [
        ("How can I reset my password?", "I forgot my login credentials", "The soup needs salt"),
        ("The database ran out of disk space", "Storage of the server is full", "She plays chess"),
        ("a cat sleeps on the sofa", "a kitten naps on the couch", "interest rates rose again"),
    ],
)
async def test_a_paraphrase_is_closer_than_an_unrelated_text(
    embedder: Embedder, text: str, paraphrase: str, unrelated: str
) -> None:
    vector, near, far = await embedder.embed([text, paraphrase, unrelated])
    assert vector @ near > vector @ far + 0.2


async def test_no_texts_are_no_rows(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, 384)


async def test_half_of_a_surrogate_pair_is_embedded_as_a_question_mark(embedder: Embedder) -> None:
    broken, marked = await embedder.embed(["why \ud800", "why ?"])
    np.testing.assert_array_equal(broken, marked)


async def test_a_question_does_not_wait_for_a_document(embedder: Embedder) -> None:
    document = asyncio.create_task(embedder.embed([LONG] * SLICE_TEXTS_MAX))
    await asyncio.sleep(0)
    await embedder.embed(["How long does this take?"])
    assert not document.done()
    document.cancel()
    with pytest.raises(asyncio.CancelledError):
        await document


async def test_a_closed_embedder_refuses(cache_dir: Path) -> None:
    embedder = LocalEmbedder.load(cache_dir, threads=1)
    working = asyncio.create_task(embedder.embed([LONG] * SLICE_TEXTS_MAX))
    await asyncio.sleep(0)
    await embedder.close()
    with pytest.raises(EmbedderError, match="closed"):
        await working
    with pytest.raises(EmbedderError, match="closed"):
        await embedder.embed(["again"])


def test_chunks_of_a_manual_are_seen_whole(tokenizer: Tokenizer) -> None:
    # Python's language reference: English prose with names and punctuation of code in it.
    chunks = [
        piece.text
        for topic in ("import", "execmodel", "compound")
        for piece in chunk(topics[topic])
    ]
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch(chunks)]
    assert len(counts) > 80
    assert sum(count > minilm.TOKEN_COUNT_MAX for count in counts) <= len(counts) * 0.05


@given(st.lists(st.integers(1, 256)), st.integers(1, 1000))
def test_batches_hold_every_text_once_and_no_more_tokens_than_allowed(
    lengths: Sequence[int], tokens_max: int
) -> None:
    found = list(batches(lengths, tokens_max))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= tokens_max
