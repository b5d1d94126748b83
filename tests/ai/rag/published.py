"""Passages as they are once they are published, without the way there."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
from msgspec import Struct
from psycopg import sql

from tests.installation import Installation

Vector = npt.NDArray[np.float64]

ANA, BO = UUID(int=1), UUID(int=2)
MODEL = "test"
WORDS = [f"w{number}x" for number in range(60)]  # no stop words, and nothing to stem


class Text(Struct, frozen=True):
    content: str
    vector: Vector
    metadata: dict[str, Any] = {}


def text_vector(vector: Vector) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def random_vector(chance: random.Random, dimensions: int = 8) -> Vector:
    vector = np.array([chance.gauss(0, 1) for _ in range(dimensions)])
    unit: Vector = vector / np.linalg.norm(vector)
    return unit


def random_texts(chance: random.Random, count: int, *, length: int = 20) -> list[Text]:
    """The first words are common, the last ones rare."""
    weights = [1 / (place + 1) for place in range(len(WORDS))]
    return [
        Text(
            " ".join(chance.choices(WORDS, weights, k=chance.randint(1, 2 * length))),
            random_vector(chance),
            {"number": number, "third": number % 3},
        )
        for number in range(count)
    ]


class Published:
    """A superuser's connection to the app's database. Who asks is Ana, if nobody else is named."""

    def __init__(self, conn: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self.conn = conn
        self._has_caller = False

    def one(self, statement: str, *values: object) -> Any:
        row = self.conn.execute(statement.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode(), values or None).fetchall()

    def collection(
        self, name: str, texts: Sequence[Text], *, owner: UUID = ANA, mode: str = "private"
    ) -> int:
        """Each text is a document's only passage; the version's id."""
        policy = "public.may_read" if mode == "custom" else None
        collection = self.one(
            "insert into ai.collections (name, owner_id, access_mode, read_policy)"
            " values (%s, %s, %s, %s) returning id",
            *(name, owner, mode, policy),
        )
        version: int = self.one(
            "select active_version from ai.indexes where collection_id = %s", collection
        )
        with self.conn.cursor() as cursor:
            for place, text in enumerate(texts):
                values = {
                    "version": version,
                    "collection": collection,
                    "owner": owner,
                    "content": text.content,
                    "title": str(place),
                    "metadata": json.dumps(text.metadata),
                    "vector": text_vector(text.vector),
                    "tokens": len(text.content.split()),
                }
                cursor.execute(_ADD_DOCUMENT, values)
        self.publish(version, texts)
        return version

    def index(self, name: str, texts: Sequence[Text], owners: Sequence[UUID]) -> int:
        """Of a table `public.<name>` whose rows are their owners'; the version's id."""
        self.conn.execute(
            sql.SQL(
                "create table public.{0} (id bigint primary key, user_id uuid, body text);"
                "alter table public.{0} enable row level security;"
                "create policy own on public.{0} for select to authenticated"
                " using (user_id = (select auth.uid()));"
                "grant select on public.{0} to anon, authenticated, service_role;"
                "create index on public.{0} (user_id);"
                "select ai.index({1}, columns => '{{body}}')"
            ).format(sql.Identifier(name), sql.Literal(f"public.{name}"))
        )
        version: int = self.one(
            "select active_version from ai.indexes where name = %s and kind = 'columns'", name
        )
        table = sql.Identifier(f"index_{version}")
        with self.conn.cursor() as cursor:
            for place, (text, owner) in enumerate(zip(texts, owners, strict=True)):
                cursor.execute(
                    sql.SQL("insert into public.{} values (%s, %s, %s)").format(
                        sql.Identifier(name)
                    ),
                    [place, owner, text.content],
                )
                values = {
                    "version": version,
                    "key": place,
                    "content": text.content,
                    "metadata": json.dumps(text.metadata),
                    "vector": text_vector(text.vector),
                    "tokens": len(text.content.split()),
                }
                cursor.execute(sql.SQL(_ADD_ROW).format(table), values)
        self.conn.execute(sql.SQL("analyze public.{}").format(sql.Identifier(name)))
        self.publish(version, texts)
        return version

    def publish(self, version: int, texts: Sequence[Text]) -> None:
        self.conn.execute(
            "update ai.index_versions set state = 'ready', model = %s, dimensions = %s,"
            " passage_count = %s, row_count = %s, token_count = %s where id = %s",
            [
                *(MODEL, len(texts[0].vector) if texts else 8, len(texts), len(texts)),
                *(sum(len(text.content.split()) for text in texts), version),
            ],
        )

    def add_vector_index(self, version: int) -> None:
        """As the upkeep of indexes makes it."""
        table, dimensions = self.rows(
            "select passages, dimensions from ai.index_versions where id = %s", version
        )[0]
        self.conn.execute(
            sql.SQL(
                "create index on ai.{0} using hnsw ((embedding::extensions.halfvec({1}))"
                " extensions.halfvec_cosine_ops) where version_id = {2};"
                "create index on ai.{0} using gin (metadata ai.jsonb_path_ops)"
                " where version_id = {2}; analyze ai.{0};"
                "update ai.index_versions set has_vector_index = true where id = {2}"
            ).format(sql.Identifier(table), sql.Literal(dimensions), sql.Literal(version))
        )

    @contextmanager
    def caller(self, user: UUID | None, role: str = "authenticated") -> Iterator["Published"]:
        """The same connection as a request has it."""
        claims = json.dumps({"sub": str(user), "role": role} if user else {"role": role})
        settings = "select set_config(name, value, false) from json_each_text(%s) s (name, value)"
        values = {
            "request.jwt.claims": claims,
            "search_path": "public, extensions",
            "role": role,
        }
        self.conn.execute(settings, [json.dumps(values)])
        self._has_caller = True
        try:
            yield self
        finally:
            self._has_caller = False
            self.conn.execute("reset role; reset search_path; reset request.jwt.claims")

    def found(self, collection: str, **options: object) -> list[int]:
        """The places of the texts that a search finds, the best first."""
        return [place for place, _ in self.scored(collection, **options)]

    def scored(self, collection: str, **options: object) -> list[tuple[int, float]]:
        return self._search("search_collection", "title::int", collection, options)

    def found_in_index(self, index: str, **options: object) -> list[int]:
        return [place for place, _ in self._search("search", "(key ->> 'id')::int", index, options)]

    def _search(
        self, function: str, place: str, name: str, options: dict[str, object]
    ) -> list[tuple[int, float]]:
        if not self._has_caller:
            with self.caller(ANA):
                return self._search(function, place, name, options)
        given = {
            key: json.dumps(value) if isinstance(value, dict) else value
            for key, value in options.items()
        }
        if isinstance(given.get("embedding"), np.ndarray):
            given["embedding"] = text_vector(given["embedding"])  # type: ignore[arg-type]
        arguments = ", ".join(f"{key} => %({key})s" for key in given)
        statement = f"select {place}, score from ai.{function}(%(name)s{', ' if given else ''}"  # noqa: S608  names of the test's own
        rows = self.conn.execute((statement + arguments + ")").encode(), {**given, "name": name})
        return [(int(place), float(score)) for place, score in rows.fetchall()]


@contextmanager
def published(installation: Installation) -> Iterator[Published]:
    with psycopg.connect(installation.main.dsn, autocommit=True) as conn:
        yield Published(conn)


def bm25(texts: Sequence[Text], asked: Sequence[str]) -> dict[int, float]:
    """Place → score, of what has one; occurrences are counted as the index's marks tell them."""
    return bm25_and_most(texts, asked)[0]


def bm25_and_most(texts: Sequence[Text], asked: Sequence[str]) -> tuple[dict[int, float], float]:
    """And the most that a passage could score."""
    counts = [Counter(text.content.split()) for text in texts]
    average = sum(sum(count.values()) for count in counts) / len(counts)
    scores: dict[int, float] = {}
    most = 0.0
    for word in set(asked):
        having = [place for place, count in enumerate(counts) if count[word]]
        weight = math.log(1 + (len(texts) - len(having) + 0.5) / (len(having) + 0.5))
        most += 2.2 * weight
        for place in having:
            count = counts[place]
            times = 5 if count[word] >= 4 else 2.3 if count[word] >= 2 else 1
            norm = 0.3 + 0.9 * sum(count.values()) / average
            scores[place] = scores.get(place, 0.0) + weight * 2.2 * times / (times + norm)
    return scores, most


def nearest(texts: Sequence[Text], vector: Vector, count: int) -> list[int]:
    order = sorted(range(len(texts)), key=lambda place: -float(texts[place].vector @ vector))
    return order[:count]


_ADD_DOCUMENT = """
with document as (
  insert into ai.documents (collection_id, owner_id, title, content, metadata)
  values (%(collection)s, %(owner)s, %(title)s, %(content)s, %(metadata)s) returning id
)
insert into ai.chunks (version_id, collection_id, document_id, ordinal, content, heading,
  start_offset, end_offset, content_hash, tokens, metadata, terms, embedding)
select %(version)s, %(collection)s, id, 0, %(content)s, '', 0, length(%(content)s),
  md5(%(content)s), %(tokens)s, %(metadata)s, ai.terms(%(version)s, 'english', '', %(content)s),
  %(vector)s::extensions.vector
from document
"""
_ADD_ROW = """
insert into ai.{} (version_id, key_1, field, ordinal, content, heading,
  start_offset, end_offset, content_hash, tokens, metadata, terms, embedding)
values (%(version)s, %(key)s, 'body', 0, %(content)s, '', 0, length(%(content)s),
  md5(%(content)s), %(tokens)s, %(metadata)s, ai.terms(%(version)s, 'english', '', %(content)s),
  %(vector)s::extensions.vector)
"""
