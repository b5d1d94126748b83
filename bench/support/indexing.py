"""From a commit to passages with vectors: documents a second, and the time until a row is found.

The stream process is the real one, with the local model on one thread. Afterwards the same model
embeds the same passages with nothing else to do: what is missing to that is what all the rest
takes (reading the log, cutting, publishing, and the cores that Postgres needs).
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql

from butterbase.ai.embedders.local import AT_ONCE, LocalEmbedder
from butterbase.ai.embedders.tokens import open_tokenizer
from butterbase.cli.setup import set_up
from butterbase.projections.chunking import chunk
from butterbase.sql.apps import FIRST_APP

from .installation import Installation, installed, streaming
from .statistics import percentile

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

POLL_S: Final = 0.002
READY_WITHIN_S: Final = 120.0
WORDS: Final = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "all",
    "her",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "no",
    "more",
    "if",
    "out",
    "so",
    "up",
    "said",
    "what",
    "its",
    "about",
    "than",
    "into",
    "them",
    "can",
    "only",
    "other",
    "time",
    "new",
    "some",
    "could",
    "these",
    "two",
    "may",
    "first",
    "then",
    "do",
    "any",
    "like",
    "my",
    "now",
    "over",
    "such",
    "our",
    "man",
    "me",
    "even",
    "most",
    "made",
    "after",
    "also",
    "did",
    "many",
    "off",
    "before",
    "must",
    "well",
    "back",
    "through",
    "years",
    "where",
    "much",
    "your",
    "way",
    "down",
    "should",
    "because",
    "long",
    "each",
    "just",
    "state",
    "people",
    "those",
    "too",
    "mr",
    "how",
    "little",
    "good",
    "world",
    "make",
    "very",
    "year",
    "still",
    "see",
    "own",
    "work",
    "men",
    "day",
    "get",
    "here",
    "old",
    "life",
    "both",
    "between",
    "being",
    "under",
    "three",
    "never",
    "know",
    "same",
    "last",
    "another",
    "while",
    "us",
    "might",
    "great",
    "go",
    "come",
    "since",
    "against",
    "right",
    "came",
    "take",
    "used",
    "himself",
    "few",
    "house",
    "american",
    "use",
    "place",
    "during",
    "high",
    "without",
    "again",
    "home",
    "around",
    "small",
    "however",
    "found",
    "part",
    "school",
    "water",
    "every",
    "number",
    "system",
]


def measure_ingest(document_count: int) -> dict[str, float]:
    """Print the figures, and answer those that are stated."""
    chance = random.Random(7)  # noqa: S311  guards nothing
    texts = [_text(chance, 1_100) for _ in range(document_count)]
    tokenizer = asyncio.run(open_tokenizer())
    with installed() as installation, _indexing(installation) as conn:
        collection = _collection(conn)
        _add(conn, collection, [_text(chance, 100)])
        _wait(conn, 1)  # the model is open
        models = installation.directory / "models"
        passages = [piece.text for text in texts for piece in chunk(text, tokenizer=tokenizer)]

        alone_s = [asyncio.run(_embed_alone(models, passages))]
        began_s = time.perf_counter()
        _add(conn, collection, texts)
        _wait(conn, 1 + document_count)
        took_s = time.perf_counter() - began_s
        # Before and after: a machine that others use is not the same all the time.
        rows = conn.execute("select content from ai.chunks")
        published = [text for (text,) in rows.fetchall()]
        alone_s.append(asyncio.run(_embed_alone(models, published)))
    print(
        f"{document_count} documents, {len(published)} passages: {took_s:.1f} s;"
        f" the model alone {' and '.join(f'{s:.1f}' for s in alone_s)} s"
    )
    model_s = statistics.mean(alone_s)
    return {
        "ingest_documents_per_s": document_count / took_s,
        "ingest_chunks_per_s": len(published) / took_s,
        "model_alone_chunks_per_s": len(published) / model_s,
        "ingest_overhead_share": max(0.0, 1 - model_s / took_s),
    }


def measure_lag(writes_per_s: int, seconds: int) -> dict[str, float]:
    """Print the figures, and answer those that are stated. A write is a row of some 20 words."""
    chance = random.Random(7)  # noqa: S311  guards nothing
    with installed() as installation, _indexing(installation) as conn:
        with psycopg.connect(installation.owner_dsn, autocommit=True) as owner:
            owner.execute("create table public.notes (id bigint primary key, body text not null)")
            owner.execute("select ai.index('public.notes', columns => '{body}')")
        conn.execute("insert into notes values (0, 'The first.')")
        (table,) = conn.execute(
            "select passages from ai.index_versions where passages <> 'chunks'"
        ).fetchone() or ("",)
        seen = sql.SQL("select key_1 from ai.{} where key_1 > %s").format(sql.Identifier(table))
        _until(lambda: conn.execute(seen, [-1]).fetchone() is not None)
        lags_ms = asyncio.run(
            _lags_ms(installation, seen, writes_per_s, writes_per_s * seconds, chance)
        )
    p50, p99 = percentile(lags_ms, 50), percentile(lags_ms, 99)
    print(f"{len(lags_ms)} rows at {writes_per_s}/s: found after {p50:.0f} ms, p99 {p99:.0f} ms")
    return {"commit_to_searchable_p50_ms": p50, "commit_to_searchable_p99_ms": p99}


async def _lags_ms(
    installation: Installation,
    seen: sql.Composed,
    writes_per_s: int,
    count: int,
    chance: random.Random,
) -> list[float]:
    committed_s: dict[int, float] = {}
    found_s: dict[int, float] = {}

    async def write() -> None:
        dsn = installation.owner_dsn
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            began_s = time.perf_counter()
            for number in range(1, count + 1):
                await asyncio.sleep(began_s + number / writes_per_s - time.perf_counter())
                await conn.execute("insert into notes values (%s, %s)", [number, _text(chance, 20)])
                committed_s[number] = time.perf_counter()

    async def watch() -> None:
        last = 0
        dsn = installation.cluster.admin_dsn(installation.app.database)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            while len(found_s) < count:
                rows = await (await conn.execute(seen, [last])).fetchall()
                now_s = time.perf_counter()
                for (key,) in rows:
                    found_s.setdefault(key, now_s)
                while last + 1 in found_s:
                    last += 1
                await asyncio.sleep(POLL_S)

    async with asyncio.timeout(READY_WITHIN_S + 4 * count / writes_per_s):
        await asyncio.gather(write(), watch())
    lags_s = (found_s[number] - at_s for number, at_s in committed_s.items())
    return sorted(max(0.0, lag_s) * 1_000 for lag_s in lags_s)


async def _embed_alone(models: Path, passages: Sequence[str]) -> float:
    embedder = LocalEmbedder.load(models, threads=1)
    await embedder.embed(["warm"])
    began_s = time.perf_counter()
    for first in range(0, len(passages), AT_ONCE.texts_max):
        await embedder.embed(passages[first : first + AT_ONCE.texts_max])
    took_s = time.perf_counter() - began_s
    await embedder.close()
    return took_s


@contextmanager
def _indexing(installation: Installation) -> Iterator[Connection]:
    """The stream process runs; a superuser's connection to the app's database."""
    asyncio.run(set_up(installation.cluster, app_id=FIRST_APP))
    dsn = installation.cluster.admin_dsn(installation.app.database)
    with streaming(installation), psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set search_path = public")
        yield conn


def _collection(conn: Connection) -> object:
    row = conn.execute("insert into ai.collections (name) values ('all') returning id").fetchone()
    assert row is not None
    return row[0]


def _add(conn: Connection, collection: object, texts: Sequence[str]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into ai.documents (collection_id, content) values (%s, %s)",
            [(collection, text) for text in texts],
        )


def _wait(conn: Connection, count: int) -> None:
    done = "select row_count from ai.index_versions where passages = 'chunks'"
    _until(lambda: conn.execute(done).fetchone() == (count,))


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S * 5
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError("what was written is not indexed; see the stream process's log")
        time.sleep(0.02)


def _text(chance: random.Random, word_count: int) -> str:
    """Sentences and paragraphs of common words."""
    words = []
    while len(words) < word_count:
        sentence = chance.choices(WORDS, k=chance.randint(6, 20))
        end = "\n\n" if chance.random() < 0.1 else ""
        words += [sentence[0].capitalize(), *sentence[1:-1], f"{sentence[-1]}.{end}"]
    return " ".join(words[:word_count])
