"""A filter on a table: compiled where our answer is Postgres's own, else asked of it.

    Filter      all of an entry's terms
    Condition   one term; equal ones are one object, and evaluated once for a change
    Comparison  what Postgres is asked about a condition: a column's text, compared with one value

NULL passes no filter, but for `is` and `isdistinct`; nor does what the log does not carry.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

from msgspec import Struct

from butterbase.realtime.changes.access import Access, AccessColumn
from butterbase.realtime.changes.compiled.errors import UnanswerableError, UncompilableError
from butterbase.realtime.changes.compiled.evaluation import Evaluate, Slots, build
from butterbase.realtime.changes.compiled.kinds import Kind, Value, is_comparable, read
from butterbase.realtime.changes.compiled.nodes import (
    ColumnValue,
    Compare,
    Constant,
    Distinct,
    Is,
    Like,
    Node,
    Not,
    Or,
)
from butterbase.realtime.changes.compiled.policies import kind_of
from butterbase.realtime.changes.filters import SIGNS, Operator, Term
from butterbase.realtime.changes.matching import Image

_WORDS: Final = {"null": None, "unknown": None, "true": True, "false": False}


class Shape(Struct, frozen=True, eq=False):
    """What comparisons have in common that one statement answers. Equal to itself alone."""

    role: str
    fingerprint: str
    """See Access."""
    column: AccessColumn
    operator: Operator
    word: str
    """What `is` asks for; else empty."""


class Comparison(Struct, frozen=True, eq=False):
    """Equal to itself alone."""

    shape: Shape
    value: str


class Told(Struct, frozen=True):
    """What Postgres says of a comparison: of these texts of the column, which make it true, which
    NULL, and which, all others, false.
    """

    texts: frozenset[str]
    true: frozenset[str]
    null: frozenset[str]

    def with_more(self, told: "Told") -> "Told":
        return Told(self.texts | told.texts, self.true | told.true, self.null | told.null)


class Missing(Struct):
    """Each of the comparisons is to be made with each of the texts."""

    comparisons: dict[Comparison, None]
    texts: dict[str, None]


class Comparisons:
    """What Postgres has said of comparisons, and what it must be asked."""

    __slots__ = ("missing", "told")

    def __init__(self) -> None:
        self.told: dict[Comparison, Told] = {}
        self.missing: dict[Shape, Missing] = {}

    def look(self, comparison: Comparison, text: str) -> tuple[bool, bool | None]:
        """Whether Postgres was asked, and its answer; what it was not is missing from then on."""
        told = self.told.get(comparison)
        if told is not None and text in told.texts:
            return True, True if text in told.true else None if text in told.null else False
        missing = self.missing.get(comparison.shape)
        if missing is None:
            missing = self.missing[comparison.shape] = Missing({}, {})
        missing.comparisons[comparison] = None
        missing.texts[text] = None
        return False, None

    def learn(self, told: Mapping[Comparison, Told]) -> None:
        for comparison, more in told.items():
            known = self.told.get(comparison)
            self.told[comparison] = more if known is None else known.with_more(more)


class Condition:
    __slots__ = (
        "__weakref__", "_answer", "_comparisons", "_compiled", "_image", "_of_null", "column",
        "term",
    )  # fmt: skip

    def __init__(self, term: Term, shape: Shape) -> None:
        self.term = term
        self.column = shape.column
        self._compiled = _compiled(term, shape.column)
        # `in` is equality with one of its values.
        self._comparisons = tuple(Comparison(shape, value) for value in term.values)
        self._of_null = _of_null(term)
        self._image: Image | None = None
        self._answer: bool | None = None

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def kind(self) -> Kind:
        return kind_of(self.column) or Kind.OTHER

    @property
    def key(self) -> frozenset[Value]:
        """Values of which the column must have one; without any nothing is known of it."""
        if self._compiled is None or self.term.is_negated or self.term.operator not in ("eq", "in"):
            return frozenset()
        return frozenset(read(self.kind, value) for value in self.term.values)

    def holds(self, image: Image, comparisons: Comparisons) -> bool | None:
        """None when Postgres must be asked, which is noted."""
        if image is self._image:
            return self._answer
        answer = self._evaluate(image, comparisons)
        if answer is not None:
            self._image, self._answer = image, answer
        return answer

    def _evaluate(self, image: Image, comparisons: Comparisons) -> bool | None:
        if self.term.column not in image:
            return False
        if self._compiled is not None:
            try:
                return self._compiled(image, ()) is True
            except UnanswerableError:
                pass
        text = image[self.term.column]
        if text is None:
            return _is_true(self._of_null, self.term)
        answers = [comparisons.look(comparison, text) for comparison in self._comparisons]
        if not all(is_told for is_told, _ in answers):
            return None
        told = [answer for _, answer in answers]
        return _is_true(True if True in told else None if None in told else False, self.term)


class Filter:
    __slots__ = ("__weakref__", "conditions", "is_key_alone", "key", "terms")

    def __init__(self, terms: tuple[Term, ...], conditions: Sequence[Condition]) -> None:
        self.terms = terms
        # What is compiled comes first: where it does not hold Postgres need not be asked.
        self.conditions = tuple(sorted(conditions, key=lambda condition: not condition.is_compiled))
        self.key: tuple[str, Kind, frozenset[Value]] | None = next(
            (
                (condition.term.column, condition.kind, key)
                for condition in self.conditions
                if (key := condition.key)
            ),
            None,
        )
        """A column, and the values of which it must have one."""
        self.is_key_alone = self.key is not None and len(self.conditions) == 1
        """Whether nothing more is asked for than the key."""

    def passes(self, image: Image, comparisons: Comparisons) -> bool | None:
        """None when Postgres must be asked, which is noted."""
        answer: bool | None = True
        for condition in self.conditions:
            holds = condition.holds(image, comparisons)
            if holds is False:
                return False
            if holds is None:
                answer = None
        return answer


class Filters:
    """Those of one role on one table: equal ones are one object, as long as somebody has it."""

    def __init__(self, access: Access, role: str) -> None:
        self._access = access
        self._role = role
        self._conditions: WeakValueDictionary[Term, Condition] = WeakValueDictionary()
        self._filters: WeakValueDictionary[tuple[Term, ...], Filter] = WeakValueDictionary()
        self._shapes: dict[tuple[str, Operator, str], Shape] = {}

    def get(self, terms: tuple[Term, ...]) -> Filter:
        """The terms' columns are readable."""
        found = self._filters.get(terms)
        if found is None:
            found = Filter(terms, [self._condition(term) for term in terms])
            self._filters[terms] = found
        return found

    def _condition(self, term: Term) -> Condition:
        found = self._conditions.get(term)
        if found is None:
            found = self._conditions[term] = Condition(term, self._shape(term))
        return found

    def _shape(self, term: Term) -> Shape:
        operator: Operator = "eq" if term.operator == "in" else term.operator
        word = term.values[0] if operator == "is" else ""
        key = term.column, operator, word
        shape = self._shapes.get(key)
        if shape is None:
            column = self._access.readable[term.column]
            shape = Shape(self._role, self._access.fingerprint, column, operator, word)
            self._shapes[key] = shape
        return shape


def columns_of(terms: Collection[Term]) -> frozenset[str]:
    return frozenset(term.column for term in terms)


def _compiled(term: Term, column: AccessColumn) -> Evaluate | None:
    """None where Postgres is asked about every value."""
    try:
        node = _node(term, column)
    except (UncompilableError, UnanswerableError):
        return None
    return build(Not(node) if term.is_negated else node, Slots())


def _node(term: Term, column: AccessColumn) -> Node:
    """The term without its negation. Raises UncompilableError, UnanswerableError."""
    kind = kind_of(column)
    if kind is None or term.type_oid != column.type_oid:  # the column's type was changed
        raise UncompilableError("a type that is not known")
    value = ColumnValue(kind, term.column)
    match term.operator:
        case "is":
            (word,) = term.values
            if word != "null" and kind is not Kind.BOOL:
                raise UncompilableError("not a boolean")
            return Is(value, _WORDS[word])
        case "in":
            return Or(tuple(_compare("eq", value, text) for text in term.values))
        case "isdistinct":
            return Distinct(value, _constant(value, term.values[0], in_order=False))
        case "like" if kind is Kind.TEXT:
            return Like(value, term.values[0])
        case "like" | "ilike" | "match" | "imatch":
            raise UncompilableError("a pattern")
        case operator:
            return _compare(operator, value, term.values[0])


def _compare(operator: Operator, value: ColumnValue, text: str) -> Node:
    in_order = operator not in ("eq", "neq")
    return Compare(SIGNS[operator], value, _constant(value, text, in_order=in_order))


def _constant(value: ColumnValue, text: str, *, in_order: bool) -> Constant:
    if not is_comparable(value.kind, value.kind, in_order=in_order):
        raise UncompilableError(f"{value.kind.name} is not compared")
    return Constant(value.kind, read(value.kind, text))


def _of_null(term: Term) -> bool | None:
    """What the term, without its negation, comes to where the column is NULL."""
    match term.operator:
        case "is":
            return term.values[0] in ("null", "unknown")
        case "isdistinct":
            return True
        case "in" if not term.values:
            return False
        case _:
            return None


def _is_true(answer: bool | None, term: Term) -> bool:
    return answer is (not term.is_negated)
