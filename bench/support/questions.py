"""Questions to a large collection: how long they take, and how much of what is nearest they find.

The passages are made up: clusters of vectors, and words as often as natural words are. They lie in
their table as the stream process would have published them, and its own upkeep makes the indexes.
Asked is as the api asks, in this process, over one connection as a user; beside it, in turns, the
plain statement that pgvector's users write, as a role that policies do not concern, with the same
index and the same `hnsw.ef_search`.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
from msgspec import Raw, Struct
from pgvector.psycopg import register_vector

from butterbase.ai.cache.store import write_vector
from butterbase.ai.rag.search import CANDIDATES_MIN, Asker, Embed, Place, Question, Searcher
from butterbase.projections.embedder import EmbeddingModel, Wanted
from butterbase.projections.indexes.upkeep import Upkeep
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE, Claims, claims_for_role
from butterbase.sql.cluster import LoginRole
from butterbase.sql.pipeline import Executor, Statement

from .installation import Installation, installed
from .statistics import percentile

Vectors: TypeAlias = npt.NDArray[np.float32]
Ask: TypeAlias = Callable[[int], Awaitable[object]]

DIMENSIONS: Final = 384
CLUSTER_COUNT: Final = 1_000
SPREAD: Final = 0.045
"""Of a cluster, in each dimension: a passage's similarity to its centre is about 0.75."""
WORD_COUNT: Final = 100_000
PASSAGE_WORDS: Final = 100
QUESTION_WORDS: Final = 7
SHARE: Final = 100
"""Of the filtered passages: one of so many."""
TOP_K: Final = 10
WARM_UP: Final = 20
USER: Final = UUID(int=1)
MODEL: Final = EmbeddingModel("made-up", DIMENSIONS)

_PLAIN = """
select coalesce(json_agg(json_build_object('content', n.content, 'metadata', n.metadata,
  'similarity', n.similarity) order by n.similarity desc), '[]')::text
from (
  select content, metadata, 1 - (embedding <=> $1::vector) as similarity
  from ai.chunks where version_id = {version}
  order by embedding::halfvec({dimensions}) <=> $1::vector::halfvec({dimensions}) limit {top_k}
) n
"""
_PLAIN_SETTINGS = (
    b"select set_config('hnsw.ef_search', '%d', true) is null,"
    b" set_config('plan_cache_mode', 'force_generic_plan', true) is null" % CANDIDATES_MIN
)


class Corpus(Struct, frozen=True):
    vectors: Vectors
    """A row for each passage, of unit length."""
    texts: list[str]
    questions: Vectors
    question_texts: list[str]


def _knowing(corpus: Corpus) -> Embed:
    """Knows the vectors of the questions."""
    vectors = dict(zip(corpus.question_texts, corpus.questions, strict=True))

    async def embed(_wanted: Wanted, text: str) -> Vectors:
        return vectors[text]

    return embed


def measure(
    passage_count: int, question_count: int, *, with_latency: bool, with_recall: bool
) -> dict[str, float]:
    """Print the figures, and answer those that are stated."""
    chance = np.random.default_rng(7)
    corpus = _corpus(chance, passage_count, question_count + WARM_UP)
    with installed() as installation:
        version = _publish(installation, corpus)
        return asyncio.run(_measure(installation, corpus, version, with_latency, with_recall))


async def _measure(
    installation: Installation, corpus: Corpus, version: int, with_latency: bool, with_recall: bool
) -> dict[str, float]:
    began_s = time.perf_counter()
    dsn = installation.cluster.dsn(LoginRole.STREAM, installation.app.database)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        upkeep = Upkeep(dsn, MODEL)
        while await upkeep.long_turn(conn):
            pass
    print(f"the indexes were made in {time.perf_counter() - began_s:.0f} s")
    executor = Executor(installation.authenticator_dsn, connection_count_max=1)
    try:
        measurement = _Measurement(executor, corpus, version)
        metrics: dict[str, float] = {}
        if with_recall:
            metrics |= await measurement.recall()
        if with_latency:
            metrics |= await measurement.latency()
        return metrics
    finally:
        await executor.close()


class _Measurement:
    def __init__(self, executor: Executor, corpus: Corpus, version: int) -> None:
        claims = json.dumps({"sub": str(USER), "role": AUTHENTICATED})
        self._asker = Asker("main", executor, Claims(AUTHENTICATED, claims, str(USER)))
        self._corpus = corpus
        self._embed = _knowing(corpus)
        self._searcher = Searcher()
        self._plain = _PLAIN.format(version=version, dimensions=DIMENSIONS, top_k=TOP_K).encode()
        self._count = len(corpus.question_texts)

    async def latency(self) -> dict[str, float]:
        """Each question is asked in each way, by turns each way first: who comes later finds the
        passages near the question in the processor's caches.
        """
        vector, hybrid, text = (self._asking(mode=mode) for mode in ("vector", "hybrid", "text"))
        filtered = self._asking(mode="vector", filter=_filter(3))
        ways: dict[str, Ask] = {
            "pgvector": self._ask_plainly,
            "query": vector,
            "query_hybrid": hybrid,
            "query_text": text,
            "query_1pct_filter": filtered,
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(self._count):
            first = number % len(ways)
            for name, ask in [*ways.items()][first:] + [*ways.items()][:first]:
                began_s = time.perf_counter()
                await ask(number)
                if number >= WARM_UP:
                    taken[name].append((time.perf_counter() - began_s) * 1_000)
        metrics = {}
        print(f"{'':>20}   p50 ms   p99 ms")
        for name, times_ms in taken.items():
            ordered = sorted(times_ms)
            p50, p99 = percentile(ordered, 50), percentile(ordered, 99)
            print(f"{name:>20} {p50:8.2f} {p99:8.2f}")
            metrics |= {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99}
        plain_ms = metrics["pgvector_p50_ms"]
        return metrics | {
            "query_vs_pgvector": metrics["query_p50_ms"] / plain_ms,
            "query_hybrid_vs_pgvector": metrics["query_hybrid_p50_ms"] / plain_ms,
        }

    async def recall(self) -> dict[str, float]:
        shares, filtered_shares, plain_shares = [], [], []
        vectors = self._corpus.vectors
        for number in range(WARM_UP, self._count):
            similarities = vectors @ self._corpus.questions[number]
            nearest = set(np.argsort(-similarities)[:TOP_K].tolist())
            shares.append(_share(await self._asking(mode="vector")(number), nearest))
            plain_shares.append(_share(await self._ask_plainly(number), nearest))
            one = number % SHARE
            places = np.arange(one, len(vectors), SHARE)
            order = np.argsort(-similarities[places])[:TOP_K]
            ask = self._asking(mode="vector", filter=_filter(one))
            filtered_shares.append(_share(await ask(number), set(places[order].tolist())))
        return {
            "recall_at_10": float(np.mean(shares)),
            "recall_1pct_filter": float(np.mean(filtered_shares)),
            "pgvector_recall_at_10": float(np.mean(plain_shares)),
        }

    def _asking(self, **options: Any) -> Ask:
        async def ask(number: int) -> bytes:
            text = self._corpus.question_texts[number]
            question = Question(query=text, top_k=TOP_K, **options)
            place = Place("collection", "large")
            return await self._searcher.find(
                self._asker, place, question, count=TOP_K, embed=self._embed
            )

        return ask

    async def _ask_plainly(self, number: int) -> bytes:
        vector = write_vector(self._corpus.questions[number])
        _, found = await self._asker.executor.run_as(
            claims_for_role(SERVICE_ROLE),
            Statement(_PLAIN_SETTINGS),
            Statement(self._plain, (vector,)),
            read_only=True,
        )
        return found.value() or b"[]"


def _filter(number: int) -> Raw:
    return Raw(json.dumps({"group": number}).encode())


def _share(found: object, nearest: set[int]) -> float:
    assert isinstance(found, bytes)
    places = {passage["metadata"]["place"] for passage in json.loads(found)}
    return len(places & nearest) / len(nearest)


def _corpus(chance: np.random.Generator, passage_count: int, question_count: int) -> Corpus:
    centres = _unit(chance.standard_normal((CLUSTER_COUNT, DIMENSIONS), np.float32))
    clusters = chance.integers(CLUSTER_COUNT, size=passage_count)
    noise = chance.standard_normal((passage_count, DIMENSIONS), np.float32)
    vectors = _unit(centres[clusters] + SPREAD * noise)
    words = np.array([f"{_word(number)}" for number in range(WORD_COUNT)])
    # Zipf's law without the words that are stop words, which nobody asks for.
    often = np.cumsum(1 / (np.arange(WORD_COUNT) + 60.0) ** 1.05)
    drawn = np.searchsorted(often / often[-1], chance.random((passage_count, PASSAGE_WORDS)))
    texts = [" ".join(row) for row in words[drawn.clip(0, WORD_COUNT - 1)]]
    asked = chance.integers(passage_count, size=question_count)
    questions = _unit(
        vectors[asked]
        + SPREAD / 2 * chance.standard_normal((question_count, DIMENSIONS), np.float32)
    )
    question_texts = [
        " ".join(chance.choice(texts[place].split(), QUESTION_WORDS, replace=False))
        for place in asked
    ]
    return Corpus(vectors, texts, questions, question_texts)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _word(number: int) -> str:
    """Syllables, with an end that no stemmer takes for one."""
    syllables = ""
    number += 37
    while number:
        number, consonant = divmod(number, 18)
        number, vowel = divmod(number, 5)
        syllables += "bcdfghjklmnprstvwz"[consonant] + "aeiou"[vowel]
    return syllables + "k"


def _publish(installation: Installation, corpus: Corpus) -> int:
    """The version of the collection `large`. Beside it in the table lies a small one."""
    began_s = time.perf_counter()
    with psycopg.connect(
        installation.cluster.admin_dsn(installation.app.database), autocommit=True
    ) as conn:
        conn.execute("set search_path = public, extensions")
        register_vector(conn)
        conn.execute("create temp table made (place int, content text, embedding vector)")
        types = ["int4", "text", "vector"]
        statement = "copy made from stdin (format binary)"
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            rows = zip(corpus.texts, corpus.vectors, strict=True)
            for place, (text, vector) in enumerate(rows):
                copy.write_row((place, text, vector))
        version = _fill(conn, "large", 1)
        _fill(conn, "small", 100)
        conn.execute("vacuum analyze ai.chunks, ai.documents")
    print(f"{len(corpus.texts)} passages were written in {time.perf_counter() - began_s:.0f} s")
    return version


def _fill(conn: "psycopg.Connection[tuple[Any, ...]]", name: str, every: int) -> int:
    row = conn.execute(
        "with made as (insert into ai.collections (name, owner_id) values (%s, %s) returning id)"
        " select id from made",
        [name, USER],
    ).fetchone()
    assert row is not None
    values = {"collection": row[0], "owner": USER, "every": every, "share": SHARE}
    active = "select active_version from ai.indexes where collection_id = %(collection)s"
    found = conn.execute(active, values).fetchone()
    assert found is not None
    values["version"] = found[0]
    conn.execute(
        "insert into ai.documents (collection_id, owner_id, title, content, id)"
        " select %(collection)s, %(owner)s, n::text, '', md5(%(collection)s::text || n)::uuid"
        " from generate_series(0, (select max(place) from made) / 10) n",
        values,
    )
    conn.execute(
        "insert into ai.chunks (version_id, collection_id, document_id, ordinal, content, heading,"
        "   start_offset, end_offset, content_hash, tokens, metadata, terms, embedding)"
        " select %(version)s, %(collection)s, md5(%(collection)s::text || place / 10)::uuid,"
        "   place %% 10, content, '', 0, length(content), encode(sha256(content::bytea), 'hex'),"
        "   130, jsonb_build_object('place', place, 'group', place %% %(share)s),"
        "   ai.terms(%(version)s, 'english', '', content), embedding"
        " from made where place %% %(every)s = 0 order by place",
        values,
    )
    conn.execute(
        "update ai.index_versions v set state = 'ready', is_swept = true, model = %(model)s,"
        "   dimensions = %(dimensions)s, passage_count = c.count, row_count = c.count / 10,"
        "   token_count = c.count * 130"
        " from (select count(*) from ai.chunks where version_id = %(version)s) c"
        " where v.id = %(version)s",
        {**values, "model": MODEL.name, "dimensions": MODEL.dimensions},
    )
    version: int = found[0]
    return version
