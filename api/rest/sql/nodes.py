"""A read, planned: what SQL is made from. Every name here was looked up, every value is a place."""

from typing import Literal, TypeAlias

from msgspec import Struct

from butterbase.api.rest.request.model import Page
from butterbase.api.rest.request.syntax import Aggregate, JsonStep
from butterbase.sql.filters import Operation
from butterbase.sql.relations.model import AnyRelationship, Name


class Column(Struct, frozen=True):
    """A column of a level's relation, with all that stands around it where it is read."""

    name: str
    path: tuple[JsonStep, ...] = ()
    is_json: bool = False
    """Whether the path can be taken of the column as it is, else of its `to_jsonb`."""
    parses_text: bool = False
    """Whether full-text search needs `to_tsvector` around it."""
    convert: str | None = None
    """A function: from the column to JSON where it is answered, from text where it is compared."""
    is_row: bool = False
    """The whole row stands for the column `*` (so that `count` counts rows that are there)."""


class Output(Struct, frozen=True):
    """One item of a level's select list."""

    column: Column
    alias: str | None = None
    cast: str | None = None
    aggregate: Aggregate | None = None
    aggregate_cast: str | None = None

    @property
    def name(self) -> str:
        return self.alias or self.column.name


class Test(Struct, frozen=True, tag=True):
    column: Column
    operation: Operation
    place: int


class EmbedTest(Struct, frozen=True, tag=True):
    """Whether an embedded relation has a row."""

    child: int
    """Its place among the level's children."""
    is_null: bool


class Group(Struct, frozen=True, tag=True):
    terms: "tuple[Condition, ...]"
    is_or: bool
    is_negated: bool


Condition: TypeAlias = Test | EmbedTest | Group


class Order(Struct, frozen=True):
    column: Column
    child: int | None = None
    """The embedded relation that has the column, by its place among the level's children."""
    direction: Literal["asc", "desc"] | None = None
    nulls: Literal["first", "last"] | None = None


class Link(Struct, frozen=True):
    """How a level hangs on the one above it."""

    relationship: AnyRelationship
    name: str
    """Of the member in the answer."""
    alias: str
    """Of the joined subquery."""
    parent_alias: str
    is_inner: bool
    is_spread: bool

    @property
    def is_to_one(self) -> bool:
        return self.relationship.is_to_one


class Node(Struct, frozen=True):
    """A level: one `select`, its embedded relations joined laterally."""

    table: Name
    alias: str
    source: Name
    """What stands in `from`: the table, or the CTE of changed or called rows."""
    outputs: tuple[Output, ...]
    conditions: tuple[Condition, ...] = ()
    order: tuple[Order, ...] = ()
    page: Page = Page()
    page_ordinal: int = 0
    """Of its limit and offset among the request's."""
    row_count_max: int | None = None
    children: "tuple[Node, ...]" = ()
    link: Link | None = None

    @property
    def defers_aggregates(self) -> bool:
        """A to-one spread's columns are its parent's, and so are the groups to aggregate over."""
        return self.link is not None and self.link.is_spread and self.link.is_to_one

    @property
    def is_spread_of_many(self) -> bool:
        return self.link is not None and self.link.is_spread and not self.link.is_to_one

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked of it or of any relation below it."""
        return not self.outputs and all(child.is_empty for child in self.children)

    @property
    def is_plain(self) -> bool:
        """Whether the answer's rows are whole rows, which media handlers take."""
        return (
            len(self.outputs) == 1
            and self.outputs[0].column.name == "*"
            and self.outputs[0].aggregate is None
            and not self.children
        )


class Export(Struct, frozen=True):
    """A column that a spread gives to the level above, which computes its aggregate."""

    name: str
    aggregate: Aggregate | None = None
    aggregate_cast: str | None = None


def exports(node: Node) -> tuple[Export, ...]:
    """The columns of a spread, its own and those of the spreads in it."""
    own = [
        Export(o.name, o.aggregate, o.aggregate_cast) if node.defers_aggregates else Export(o.name)
        for o in node.outputs
    ]
    for child in node.children:
        if child.link is None or not child.link.is_spread:
            own += [] if child.is_empty or child.link is None else [Export(child.link.name)]
        elif node.defers_aggregates:
            own += exports(child)
        else:
            own += [Export(e.name) for e in exports(child)]
    return tuple(own)


def is_aggregated(node: Node) -> bool:
    """Whether the level's rows are groups."""
    return not node.defers_aggregates and _asks_aggregate(node)


def gives_aggregate(node: Node) -> bool:
    """Whether the level above has an aggregate by it."""
    return node.defers_aggregates and _asks_aggregate(node)


def _asks_aggregate(node: Node) -> bool:
    return any(o.aggregate for o in node.outputs) or any(map(gives_aggregate, node.children))


def carried_count(node: Node, spread_depth: int = 0) -> int:
    """Columns that spreads give to the levels above them, counted on each such level."""
    if node.link is not None:
        spread_depth = spread_depth + 1 if node.link.is_spread else 0
    own = len(node.outputs) + sum(not c.link.is_spread for c in node.children if c.link)
    return own * spread_depth + sum(carried_count(child, spread_depth) for child in node.children)
