"""What a client may have meant by a name that is not in the schema cache. Pure.

Names are compared as PostgREST compares them, by fuzzyset: names that share trigrams with the word
(bigrams, when no such name is close enough) are ranked by the cosine of their gram counts, and the
best of them by Levenshtein distance.
https://github.com/Glench/fuzzyset.js
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from math import sqrt

from butterbase.sql.relations.model import SchemaCache

TABLE_COUNT_MAX = 500
"""Schemas with as many tables get no hints for tables."""

WORD_LENGTH_MAX = 512
"""In characters; longer words are no misspelt names, and would take long to compare."""

_CLOSE = 0.75
_SIMILAR = 0.33
_GRAM_SIZES = (3, 2)
_CANDIDATE_COUNT_MAX = 50


def relationship_hint(cache: SchemaCache, schema: str, parent: str, child: str) -> str | None:
    """PGRST200's: nothing when both are known, since then the request's own hint is wrong."""
    relationships = cache.relationships.get(((schema, parent), schema))
    if relationships is None:
        parents = (
            name for (_, name), other_schema in cache.relationships if other_schema == schema
        )
        meant, written = closest(parents, parent, _SIMILAR), parent
    else:
        children = {relationship.other[1] for relationship in relationships}
        meant, written = closest(children, child, _SIMILAR), child
        if meant is not None and meant.lower() == child.lower():
            return None
    return None if meant is None else f"Perhaps you meant '{meant}' instead of '{written}'."


def routine_hint(
    cache: SchemaCache, schema: str, name: str, arguments: Iterable[str]
) -> str | None:
    """PGRST202's: another function; or of one that is known, other parameters."""
    if overloads := cache.routines.get((schema, name)):
        signatures = [_signature(p.name for p in routine.parameters) for routine in overloads]
        # Of equally close overloads, the one with the most parameters.
        signature = closest(reversed(signatures), _signature(arguments), _SIMILAR)
        meant = None if signature is None else name + signature
    else:
        names = sorted(other for of_schema, other in cache.routines if of_schema == schema)
        meant = closest(names, name, _CLOSE)
    return None if meant is None else f"Perhaps you meant to call the function {schema}.{meant}"


def table_hint(cache: SchemaCache, schema: str, name: str) -> str | None:
    """PGRST205's."""
    names = sorted(table for of_schema, table in cache.tables if of_schema == schema)
    meant = closest(names, name, _CLOSE) if len(names) < TABLE_COUNT_MAX else None
    return None if meant is None else f"Perhaps you meant the table '{schema}.{meant}'"


def _signature(names: Iterable[str]) -> str:
    return f"({', '.join(sorted(names))})"


def closest(candidates: Iterable[str], word: str, minimum: float) -> str | None:
    """The candidate that is most like the word, of a likeness from 0 to 1 of at least `minimum`.

    Of equally close ones, the first.
    """
    if len(word) > WORD_LENGTH_MAX:
        return None
    return _index(tuple(candidates)).closest(word.lower(), minimum)


@lru_cache(maxsize=32)
def _index(candidates: tuple[str, ...]) -> "_FuzzySet":
    return _FuzzySet(candidates)


class _FuzzySet:
    """Names by their grams."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        """By their lowercase."""
        for name in names:
            self._names.setdefault(name.lower(), name)
        self._magnitudes: dict[tuple[str, int], float] = {}
        self._by_gram: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, size in product(self._names, _GRAM_SIZES):
            grams = _grams(key, size)
            self._magnitudes[key, size] = _magnitude(grams)
            for gram, count in grams.items():
                self._by_gram[gram].append((key, count))

    def closest(self, word: str, minimum: float) -> str | None:
        if word in self._names:
            return self._names[word]
        for size in _GRAM_SIZES:
            keys = self._sharing(word, size)
            best = max(keys, key=lambda key: _likeness(word, key), default=None)
            if best is not None and _likeness(word, best) >= minimum:
                return self._names[best]
        return None

    def _sharing(self, word: str, size: int) -> list[str]:
        """Keys with grams in common, most alike first."""
        grams = _grams(word, size)
        products: Counter[str] = Counter()
        for gram, count in grams.items():
            for key, other_count in self._by_gram.get(gram, ()):
                products[key] += count * other_count
        magnitude = _magnitude(grams)

        def cosine(key: str) -> float:
            return products[key] / (magnitude * self._magnitudes[key, size])

        sharing = (key for key in self._names if key in products)
        return sorted(sharing, key=cosine, reverse=True)[:_CANDIDATE_COUNT_MAX]


def _grams(text: str, size: int) -> Counter[str]:
    kept = "".join(c for c in text if c.isalnum() or c.isspace() or c == ",")
    enclosed = f"-{kept}-"
    return Counter(enclosed[i : i + size] for i in range(len(enclosed) - size + 1))


def _magnitude(grams: Counter[str]) -> float:
    return sqrt(sum(count * count for count in grams.values()))


def _likeness(a: str, b: str) -> float:
    longest = max(len(a), len(b))
    return 1 - edit_distance(a, b) / longest if longest else 1.0


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's, by Myers's bit vectors: a bit for each character of `a`.

    https://doi.org/10.1145/316542.316550
    """
    if not a:
        return len(b)
    places: dict[str, int] = defaultdict(int)
    for i, character in enumerate(a):
        places[character] |= 1 << i
    every, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    # Where a column of the distance table goes up by one, and where down, from row to row.
    up, down, distance = every, 0, len(a)
    for character in b:
        equal = places.get(character, 0)
        vertical = equal | down
        horizontal = (((equal & up) + up) ^ up) | equal
        grows, shrinks = (down | ~(horizontal | up)) & every, up & horizontal
        if grows & last:
            distance += 1
        elif shrinks & last:
            distance -= 1
        grows, shrinks = grows << 1 | 1, shrinks << 1
        up = (shrinks | ~(vertical | grows)) & every
        down = grows & vertical & every
    return distance
