"""Filters on metadata, against what they mean."""

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.ai.rag.published import Published, Text, random_vector

METADATA: list[dict[str, Any]] = [
    {},
    {"lang": "en", "page": 3, "tags": ["a", "b"]},
    {"lang": "de", "page": 7.5, "tags": []},
    {"lang": None, "page": "3", "tags": "a"},
    {"lang": ["en", "de"], "draft": True},
    {"author": {"name": "Ana", "age": 40}, "page": -1},
    {"author": {"name": "Bo"}, "a.b": 1, 'quo"te': "it's", "back\\slash": "\\"},
    {"author": "Ana", "draft": False, "date": "2026-03-01"},
]

MISSING = object()


def held(metadata: Any, *path: str) -> list[Any]:
    """What a field holds: values, those of an array, or nothing."""
    for name in path:
        metadata = metadata.get(name, MISSING) if isinstance(metadata, dict) else MISSING
    if metadata is MISSING:
        return []
    return metadata if isinstance(metadata, list) else [metadata]


def compared(compare: Callable[[Any, Any], bool], value: Any, *path: str) -> Callable[[Any], bool]:
    def matches(metadata: Any) -> bool:
        kinds = (int, float) if isinstance(value, int | float) else str
        return any(
            isinstance(one, kinds) and not isinstance(one, bool) and compare(one, value)
            for one in held(metadata, *path)
        )

    return matches


def equal(value: Any, *path: str) -> Callable[[Any], bool]:
    return lambda metadata: any(
        one == value and isinstance(one, bool) == isinstance(value, bool)
        for one in held(metadata, *path)
    )


CASES: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
    ({}, lambda _: True),
    ({"lang": "en"}, equal("en", "lang")),
    ({"lang": None}, equal(None, "lang")),
    ({"page": 3}, equal(3, "page")),
    ({"page": 3.0}, equal(3, "page")),
    ({"page": "3"}, equal("3", "page")),
    ({"draft": True}, equal(True, "draft")),
    ({"tags": "a"}, equal("a", "tags")),
    ({"author": {"name": "Ana"}}, equal("Ana", "author", "name")),
    ({"author": {"name": "Ana", "age": {"$gt": 39}}}, equal("Ana", "author", "name")),
    ({"author": {"age": {"$gt": 40}}}, lambda _: False),
    ({"a.b": 1}, equal(1, "a.b")),
    ({'quo"te': "it's"}, equal("it's", 'quo"te')),
    ({"back\\slash": "\\"}, equal("\\", "back\\slash")),
    ({'quo"te': {"$startsWith": "it'"}}, equal("it's", 'quo"te')),
    ({"back\\slash": {"$gte": "\\"}}, equal("\\", "back\\slash")),
    ({"lang": {"$ne": "en"}}, lambda m: not equal("en", "lang")(m)),
    ({"lang": {"$eq": "en"}, "page": 3}, equal(3, "page")),
    ({"lang": {"$in": ["en", None]}}, lambda m: {"en", None} & set(held(m, "lang")) != set()),
    ({"lang": {"$in": []}}, lambda _: False),
    ({"lang": {"$nin": ["en"]}}, lambda m: not equal("en", "lang")(m)),
    ({"tags": {"$all": ["a", "b"]}}, lambda m: {"a", "b"} <= set(held(m, "tags"))),
    ({"tags": {"$all": []}}, lambda _: True),
    ({"page": {"$gt": 3}}, compared(lambda a, b: a > b, 3, "page")),
    ({"page": {"$gte": 3}}, compared(lambda a, b: a >= b, 3, "page")),
    ({"page": {"$lt": 0}}, compared(lambda a, b: a < b, 0, "page")),
    ({"page": {"$gte": -1, "$lte": 7.5}}, compared(lambda a, _: -1 <= a <= 7.5, 0, "page")),
    ({"date": {"$gte": "2026-01-01"}}, equal("2026-03-01", "date")),
    ({"lang": {"$startsWith": "e"}}, compared(lambda a, b: a.startswith(b), "e", "lang")),
    ({"draft": {"$exists": True}}, lambda m: "draft" in m),
    ({"draft": {"$exists": False}}, lambda m: "draft" not in m),
    ({"lang": {"$exists": True}}, lambda m: "lang" in m),
    (
        {"$or": [{"page": 3}, {"author": {"name": "Bo"}}]},
        lambda m: equal(3, "page")(m) or equal("Bo", "author", "name")(m),
    ),
    ({"$and": [{"lang": "en"}, {"tags": "a"}]}, lambda m: equal("a", "tags")(m) and "draft" not in m
        and equal("en", "lang")(m)),
    ({"$not": {"lang": "en"}}, lambda m: not equal("en", "lang")(m)),
    ({"$not": {"$or": [{"lang": "en"}, {"page": {"$exists": True}}]}},
        lambda m: not equal("en", "lang")(m) and "page" not in m),
]  # fmt: skip


@pytest.fixture
def filtered(passages: Published) -> Published:
    chance = random.Random(5)  # noqa: S311  guards nothing
    passages.collection("notes", [Text("word", random_vector(chance), m) for m in METADATA])
    return passages


def test_a_filter_lets_through_what_it_says(filtered: Published) -> None:
    for filter_, matches in CASES:
        expected = [place for place, metadata in enumerate(METADATA) if matches(metadata)]
        vector = np.ones(8) / np.sqrt(8)
        for options in ({"query": "word"}, {"embedding": vector}):
            found = filtered.found("notes", top_k=100, filter=filter_, **options)
            assert sorted(found) == expected, filter_


def test_it_does_with_an_index_over_vectors_too(passages: Published) -> None:
    chance = random.Random(5)  # noqa: S311  guards nothing
    texts = [Text("word", random_vector(chance), METADATA[n % len(METADATA)]) for n in range(2400)]
    passages.add_vector_index(passages.collection("notes", texts))
    vector = random_vector(chance)
    for filter_, matches in CASES:
        mine = [place for place, text in enumerate(texts) if matches(text.metadata)]
        found = passages.found("notes", embedding=vector, top_k=10, filter=filter_)
        order = sorted(mine, key=lambda place: -float(texts[place].vector @ vector))
        assert set(found) <= set(mine), filter_
        assert len(set(found) & set(order[:10])) >= min(9, len(mine)), filter_


@pytest.mark.parametrize(
    "filter_",
    [
        [],
        "lang",
        {"$near": 1},
        {"lang": {"$near": 1}},
        {"lang": {"$in": "en"}},
        {"lang": {"$in": [["en"]]}},
        {"lang": ["en"]},
        {"lang": {}},
        {"lang": {"$eq": {"a": 1}}},
        {"page": {"$gt": None}},
        {"page": {"$gt": True}},
        {"page": {"$gt": [1]}},
        {"lang": {"$startsWith": 1}},
        {"lang": {"$exists": "yes"}},
        {"$and": []},
        {"$and": {}},
        {"$or": [1]},
        {"$not": []},
        {"lang": {"$and": [{"a": 1}]}},
        {"a": "x" * 20_000},
        {"a": {"$in": list(range(300))}},
        {"$or": [{"a": 1}] * 300},
    ],
)
def test_what_is_no_filter_is_refused(filtered: Published, filter_: object) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="filter") as refused:
        filtered.found("notes", query="word", filter=json.dumps(filter_))
    assert "$gte" in (refused.value.diag.message_hint or "")


def test_deep_filters_are_refused(filtered: Published) -> None:
    filter_: dict[str, Any] = {"a": 1}
    for _ in range(40):
        filter_ = {"$not": filter_}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="too large"):
        filtered.found("notes", query="word", filter=json.dumps(filter_))
