"""What a query string says, without its values: the syntax tree that plans are made from.

Equal requests but for their values have equal trees, so a tree is a key of the plan cache. A value
stands in the tree as its place in `Query.values` and reaches Postgres as a parameter only.
https://docs.postgrest.org/en/stable/references/api/url_grammar.html
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from butterbase.sql.filters import Operation

Path: TypeAlias = tuple[str, ...]
"""Names or aliases of embedded relations, from the root; empty for the root itself."""

Aggregate: TypeAlias = Literal["sum", "avg", "count", "max", "min"]


class JsonStep(Struct, frozen=True):
    """`->key`, `->>key`, `->0`."""

    key: str
    """Of an index: digits, with a sign where it has one."""
    is_index: bool = False
    as_text: bool = False


class Field(Struct, frozen=True):
    name: str
    path: tuple[JsonStep, ...] = ()


class SelectField(Struct, frozen=True, tag=True):
    """`alias:column->path::cast.aggregate()::cast`; `*` and `count()` have the name `*`."""

    field: Field
    alias: str | None = None
    cast: str | None = None
    """Letters, digits, `_`, `$` and spaces."""
    aggregate: Aggregate | None = None
    aggregate_cast: str | None = None


class SelectRelation(Struct, frozen=True, tag=True):
    """`alias:name!hint!inner(…)`, or a spread, `...name(…)`."""

    name: str
    select: "tuple[SelectItem, ...]" = ()
    alias: str | None = None
    hint: str | None = None
    join: Literal["inner", "left"] | None = None
    is_spread: bool = False


SelectItem: TypeAlias = SelectField | SelectRelation


class Filter(Struct, frozen=True, tag=True):
    field: Field
    operation: Operation
    place: int = -1
    """Where the value stands in `Query.values`; -1 when the operation takes none (`is`)."""


class Logic(Struct, frozen=True, tag=True):
    """`and(…)`, `or(…)`."""

    terms: "tuple[Condition, ...]"
    is_or: bool = False
    is_negated: bool = False


Condition: TypeAlias = Filter | Logic


class OrderTerm(Struct, frozen=True):
    """`column.desc.nullslast`, or by a column of an embedded relation, `relation(column)`."""

    field: Field
    relation: str | None = None
    direction: Literal["asc", "desc"] | None = None
    nulls: Literal["first", "last"] | None = None


class Shape(Struct, frozen=True):
    """A query string without its values."""

    select: tuple[SelectItem, ...] = (SelectField(Field("*")),)
    filters: tuple[tuple[Path, Filter], ...] = ()
    """In the order of the query string."""
    logic: tuple[tuple[Path, Logic], ...] = ()
    order: tuple[tuple[Path, tuple[OrderTerm, ...]], ...] = ()
    ranged: tuple[Path, ...] = ()
    """Levels with a limit or an offset, in the order of `Query.ranges`; the root's header aside."""
    columns: tuple[str, ...] | None = None
    """Of `columns=`, without doubles, by name."""
    on_conflict: tuple[str, ...] | None = None

    @property
    def conditions(self) -> list[tuple[Path, Condition]]:
        """Filters, then logic."""
        return [*self.filters, *self.logic]


class Range(Struct, frozen=True):
    """Rows `first` to `last`, from zero, both included; `last` None means to the end."""

    first: int = 0
    last: int | None = None

    @property
    def limit(self) -> int | None:
        return None if self.last is None else self.last - self.first + 1


class Query(Struct, frozen=True):
    outline: tuple[object, ...]
    """Hashable. Equal outlines have equal shapes; see `parser.shape_of`."""
    values: tuple[str, ...] = ()
    """As Postgres reads them: a list is an array literal, `*` in `like` is `%`."""
    ranges: tuple[tuple[Path, Range], ...] = ()
    """From `limit` and `offset`."""
    arguments: tuple[tuple[str, str], ...] = ()
    """Of a function called by GET: name and text, repetitions included."""
    canonical: str = ""
    """The parameters sorted by name, percent-encoded."""
