"""`$n` parameters, numbered in the order of their first use, and where each finds its value.

A statement's text is made once for a shape; a request of that shape then only fills in its values,
by `fill`. The values stand in one row: filter values, a limit and an offset for each range, the
body, the arguments of a function.
"""

from collections.abc import Sequence

from psycopg.sql import SQL


class Parameters:
    def __init__(self, *, value_count: int, range_count: int) -> None:
        self._range_first = value_count
        self._body = value_count + 2 * range_count
        self._ordinals: dict[int, int] = {}

    def value(self, place: int) -> SQL:
        return self._use(place)

    def limit(self, ordinal: int) -> SQL:
        return self._use(self._range_first + 2 * ordinal)

    def offset(self, ordinal: int) -> SQL:
        return self._use(self._range_first + 2 * ordinal + 1)

    def body(self) -> SQL:
        return self._use(self._body)

    def argument(self, ordinal: int) -> SQL:
        return self._use(self._body + 1 + ordinal)

    @property
    def recipe(self) -> tuple[int, ...]:
        """For `$1`, `$2`, …: where the value stands."""
        return tuple(self._ordinals)

    def _use(self, place: int) -> SQL:
        ordinal = self._ordinals.setdefault(place, len(self._ordinals) + 1)
        return SQL(f"${ordinal:d}")


def fill(recipe: tuple[int, ...], row: Sequence[bytes | None]) -> list[bytes | None]:
    return [row[place] for place in recipe]
