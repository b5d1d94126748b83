"""Comparisons that are not compiled, asked of Postgres: one statement for many values of a column.

Each value of the column is compared with each value of the filters, by the column's own operator
and under its own collation. An error makes the answer NULL, and so does what takes longer than
`statement_timeout`; who has asked for it is then not answered for a while.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct
from psycopg.sql import SQL, Composable

from butterbase.ingest.session import TEXT_SETTINGS
from butterbase.realtime.changes.access import QUERY_CANCELED, AccessColumn
from butterbase.realtime.changes.conditions import Comparison, Missing, Shape, Told
from butterbase.realtime.changes.filters import PATTERNS, SIGNS, WORDS, Operator
from butterbase.realtime.changes.pauses import Pauses
from butterbase.sql.claims import claims_for_role
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

# The log's, since it is the log's texts that are read.
LIKE_THE_LOG: Final = tuple(
    Statement(b"select set_config($1, $2, true)", (name.encode(), value.encode()))
    for name, value in TEXT_SETTINGS.items()
)

_OPERATORS: Final[dict[Operator, str]] = {
    **SIGNS,
    **PATTERNS,
    "isdistinct": "is distinct from",
}
_WORDS: Final = {word: word for word in WORDS}
_BYTEA: Final = 17
_WARNED_COUNT_MAX: Final = 1000
PAIR_COUNT_MAX: Final = 100_000
"""Of values with values, in one statement: many filters take several, each well in its time."""

_Identity: TypeAlias = tuple[str, str, str, Operator, str]


def compared(
    column: AccessColumn, operator: Operator, text: Composable, value: Composable, word: str = ""
) -> Composable:
    """The comparison of a column's text with a value's, as SQL; `word` is what `is` asks for."""
    left = cast(text, column)
    if operator == "is":
        return SQL("({} is {})").format(left, SQL(_WORDS[word]))
    right = SQL("{}::{}").format(value, SQL(pattern_type(column)))
    if operator not in PATTERNS:
        right = SQL("{}::{}").format(value, SQL(column.sql_type))
    return SQL("({} {} {})").format(left, SQL(_OPERATORS[operator]), right)


def cast(text: Composable, column: AccessColumn) -> Composable:
    """The text as the column's type, under its collation."""
    value = SQL("{}::{}").format(text, SQL(column.sql_type))
    if column.collation is None:
        return value
    return SQL("{} collate {}").format(value, SQL(column.collation))


def pattern_type(column: AccessColumn) -> str:
    return "bytea" if column.type_oid == _BYTEA else "text"


@lru_cache(maxsize=1024)
def _statement(column: AccessColumn, operator: Operator, word: str, fingerprint: str) -> bytes:
    """A row for each of `$2`, a letter for each of `$1`: JSON arrays of text."""
    answer = compared(column, operator, SQL("texts.text"), SQL("wanted.value"), word)
    return (
        SQL(
            "select /* {fingerprint} */ (select string_agg("
            "case {answer} when true then 't' when false then 'f' else 'n' end, ''"
            " order by texts.place)"
            " from json_array_elements_text($1::json) with ordinality as texts (text, place))"
            " from json_array_elements_text($2::json) with ordinality as wanted (value, place)"
            " order by wanted.place"
        )
        .format(fingerprint=SQL(fingerprint), answer=answer)
        .as_bytes(None)
    )


class Job(Struct, frozen=True):
    """What one statement answers."""

    shape: Shape
    comparisons: tuple[Comparison, ...]
    texts: tuple[str, ...]

    @property
    def nothing(self) -> dict[Comparison, Told]:
        """Every answer is NULL."""
        return dict.fromkeys(self.comparisons, _nothing(self.texts))


class Comparer:
    def __init__(self, executor: Executor, *, pause_s: float) -> None:
        self._executor = executor
        self._paused = Pauses[_Identity](pause_s)
        self._apart = Pauses[_Identity](pause_s)
        """Those that were among others when one of them failed."""
        self._warned: set[_Identity] = set()

    def jobs(self, missing: Mapping[Shape, Missing]) -> list[Job]:
        """What can be asked at the same time."""
        return [
            Job(shape, some, tuple(wanted.texts))
            for shape, wanted in missing.items()
            for some in self._portions(wanted)
        ]

    def _portions(self, wanted: Missing) -> Iterator[tuple[Comparison, ...]]:
        together = []
        for comparison in wanted.comparisons:
            if _identity(comparison) in self._apart:
                yield (comparison,)
            else:
                together.append(comparison)
        count = max(1, PAIR_COUNT_MAX // len(wanted.texts))
        for start in range(0, len(together), count):
            yield tuple(together[start : start + count])

    async def perform(self, job: Job) -> dict[Comparison, Told]:
        """What is told may be nothing: what failed is then a job of its own the next time.

        Raises DatabaseUnavailableError.
        """
        told = {
            comparison: _nothing(job.texts)
            for comparison in job.comparisons
            if _identity(comparison) in self._paused
        }
        asked = [comparison for comparison in job.comparisons if comparison not in told]
        if not asked:
            return told
        try:
            return told | await self._ask(job.shape, asked, job.texts)
        except DatabaseError as error:
            if len(asked) > 1:
                for comparison in asked:
                    self._apart.add(_identity(comparison))
                return told
            (comparison,) = asked
            if error.sqlstate != QUERY_CANCELED:
                return {comparison: await self._ask_each(comparison, job.texts)}
            self._warn(comparison, error)
            self._paused.add(_identity(comparison))
            return job.nothing

    async def _ask_each(self, comparison: Comparison, texts: Sequence[str]) -> Told:
        """As `_ask`; a text on which it fails is compared to NULL, and costs no other."""
        try:
            return (await self._ask(comparison.shape, [comparison], texts))[comparison]
        except DatabaseError as error:
            if len(texts) == 1 or error.sqlstate == QUERY_CANCELED:
                self._warn(comparison, error)
                return _nothing(texts)
            middle = len(texts) // 2
            first = await self._ask_each(comparison, texts[:middle])
            return first.with_more(await self._ask_each(comparison, texts[middle:]))

    async def _ask(
        self, shape: Shape, comparisons: Sequence[Comparison], texts: Sequence[str]
    ) -> dict[Comparison, Told]:
        values = [comparison.value for comparison in comparisons]
        parameters = msgspec.json.encode(texts), msgspec.json.encode(values)
        statement = Statement(
            _statement(shape.column, shape.operator, shape.word, shape.fingerprint), parameters
        )
        claims = claims_for_role(shape.role)
        *_, result = await self._executor.run_as(claims, *LIKE_THE_LOG, statement, read_only=True)
        asked = frozenset(texts)
        told = {}
        for comparison, (letters,) in zip(comparisons, result.rows(), strict=True):
            assert letters is not None
            true, null = (
                frozenset(compress(texts, (each == letter for each in letters))) for letter in b"tn"
            )
            told[comparison] = Told(asked, true, null)
        return told

    def _warn(self, comparison: Comparison, error: DatabaseError) -> None:
        identity = _identity(comparison)
        if identity not in self._warned and len(self._warned) < _WARNED_COUNT_MAX:
            self._warned.add(identity)
            logger.warning(
                "a filter on %s fails, and hides rows from its subscribers: %s",
                comparison.shape.column.name,
                error.message,
            )


def _nothing(texts: Iterable[str]) -> Told:
    """Every answer is NULL."""
    asked = frozenset(texts)
    return Told(asked, frozenset(), asked)


def _identity(comparison: Comparison) -> _Identity:
    """What is the same for a comparison that is made anew."""
    shape = comparison.shape
    return shape.role, shape.fingerprint, shape.column.name, shape.operator, comparison.value
