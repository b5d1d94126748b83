"""Levels and the schema cache → nodes: names are looked up, relationships found. Pure."""

from collections.abc import Collection, Sequence

from msgspec import Struct

from butterbase.api.rest.errors import (
    AggregatesDisabledError,
    NotImplementedYetError,
    QueryStringError,
    RelatedOrderError,
)
from butterbase.api.rest.plan.levels import Level, not_embedded
from butterbase.api.rest.plan.relate import find_relationship
from butterbase.api.rest.request.syntax import Field, Filter, Logic, OrderTerm, SelectField
from butterbase.api.rest.sql.nodes import (
    Column,
    Condition,
    EmbedTest,
    Group,
    Link,
    Node,
    Order,
    Output,
    Test,
    carried_count,
    gives_aggregate,
)
from butterbase.sql.relations.model import Name, SchemaCache, Table

ALIAS_LENGTH_MAX = 58
"""Of a relation's name in an alias, so that the depth behind it is not cut off at 63 bytes."""


OUTPUT_COUNT_MAX = 1664
"""Of the columns of one level, as Postgres has it, with `*` spelled out."""

CARRIED_COUNT_MAX = 2000
"""Of the columns that spreads give to the levels above them, counted on each such level, since the
statement names them on each."""


class Reader(Struct, frozen=True):
    """What a request is planned with."""

    cache: SchemaCache
    schema: str
    aggregates_enabled: bool = False
    row_count_max: int | None = None

    def plan(self, root: Level, table: Name, source: Name | None = None) -> Node:
        """Raises RestError. `source`: a CTE that stands for the table."""
        if not self.aggregates_enabled:
            _refuse_aggregates(root)
        node = self._node(root, table, table[1], source or table, None, 0, is_expanded=False)
        if carried_count(node) > CARRIED_COUNT_MAX:
            raise QueryStringError(
                f"The spreads of the request carry more than {CARRIED_COUNT_MAX} columns"
            )
        return node

    def _node(
        self,
        level: Level,
        table: Name,
        alias: str,
        source: Name,
        link: Link | None,
        depth: int,
        *,
        is_expanded: bool,
    ) -> Node:
        """`is_expanded`: a level above aggregates, so `*` is spelled out."""
        is_spread_of_many = link is not None and link.is_spread and not link.is_to_one
        is_expanded = is_expanded or is_spread_of_many or any(f.aggregate for f in level.fields)
        children = self._children(level, table, alias, depth + 1, is_expanded)
        if not is_expanded and any(gives_aggregate(c) for c in children):
            is_expanded = True
        columns = Columns(self.cache, self.cache.tables.get(table))
        node = Node(
            table=table,
            alias=alias,
            source=source,
            outputs=columns.outputs(
                level.fields, is_expanded=is_expanded, is_spread=bool(link and link.is_spread)
            ),
            conditions=tuple(condition_of(columns, c, level.children) for c in level.conditions),
            order=tuple(_order(columns, table, children, t) for t in level.order),
            page=level.page,
            page_ordinal=level.page_ordinal,
            row_count_max=self.row_count_max,
            children=children,
            link=link,
        )
        if is_spread_of_many and (
            any(o.aggregate for o in node.outputs) or any(gives_aggregate(c) for c in children)
        ):
            raise NotImplementedYetError(
                details="Aggregates are not implemented for one-to-many or many-to-many spreads."
            )
        return node

    def _children(
        self, level: Level, table: Name, parent_alias: str, depth: int, is_expanded: bool
    ) -> tuple[Node, ...]:
        children: list[Node] = []
        taken = {parent_alias}
        for child in level.children:
            joined_alias = _alias(f"{table[1]}_{child.name}", depth, taken)
            taken.add(joined_alias)
            link = self._link(child, table, parent_alias, joined_alias)
            other = link.relationship.other
            alias = _alias(other[1], depth, {parent_alias})
            children.append(
                self._node(child, other, alias, other, link, depth, is_expanded=is_expanded)
            )
        return tuple(children)

    def _link(self, level: Level, parent: Name, parent_alias: str, alias: str) -> Link:
        asked = level.relation
        assert asked is not None
        return Link(
            find_relationship(self.cache, self.schema, parent[1], asked.name, asked.hint),
            name=level.name,
            alias=alias,
            parent_alias=parent_alias,
            is_inner=asked.join == "inner",
            is_spread=asked.is_spread,
        )


class Columns(Struct, frozen=True):
    """Looks up the columns of one relation; an unknown one may be a function of the row."""

    cache: SchemaCache
    table: Table | None

    def outputs(
        self, fields: list[SelectField], *, is_expanded: bool, is_spread: bool
    ) -> tuple[Output, ...]:
        found: list[Output] = []
        for asked in fields:
            is_star = asked.field.name == "*" and not asked.field.path
            if is_star and asked.aggregate is None and (is_expanded or self._has_converted()):
                assert self.table is not None or not self._has_converted()
                found += self._all(is_spread)
            else:
                found.append(self._output(asked, is_spread=is_spread))
            if len(found) > OUTPUT_COUNT_MAX:
                raise QueryStringError(
                    f"A relation of the request has more than {OUTPUT_COUNT_MAX} columns"
                )
        return tuple(found)

    def compared(self, field: Field, *, by_text_search: bool = False) -> Column:
        """A column in a filter: a domain's value is made from text by its function."""
        column = self.plain(field, by_text_search=by_text_search)
        return self._converted(column, "text", self._type(field.name))

    def plain(self, field: Field, *, by_text_search: bool = False) -> Column:
        """A column as it is, as orders have it."""
        known = self.table.columns.get(field.name) if self.table else None
        nominal_type = known.nominal_type if known else ""
        return Column(
            field.name,
            field.path,
            is_json=nominal_type in ("json", "jsonb"),
            parses_text=by_text_search and known is not None and known.type != "tsvector",
        )

    def _all(self, is_spread: bool) -> list[Output]:
        if self.table is None:
            return [Output(Column("*"))]
        return [
            self._output(SelectField(Field(name)), is_spread=is_spread)
            for name in self.table.columns
        ]

    def _output(self, asked: SelectField, *, is_spread: bool) -> Output:
        column = self._converted(self.plain(asked.field), self._type(asked.field.name), "json")
        if is_spread and asked.aggregate == "count" and asked.field.name == "*":
            column = Column("*", is_row=True)
        return Output(
            column,
            _alias_of(asked, is_spread=is_spread, is_converted=column.convert is not None),
            asked.cast,
            asked.aggregate,
            asked.aggregate_cast,
        )

    def _converted(self, column: Column, source: str, target: str) -> Column:
        function = self.cache.representations.get((source, target))
        if function is None:
            return column
        return Column(
            column.name, column.path, column.is_json, column.parses_text, convert=function
        )

    def _has_converted(self) -> bool:
        if self.table is None or not self.cache.representations:
            return False
        kinds = self.cache.representations
        return any((c.nominal_type, "json") in kinds for c in self.table.columns.values())

    def _type(self, name: str) -> str:
        known = self.table.columns.get(name) if self.table else None
        return known.nominal_type if known else ""


def condition_of(
    columns: Columns, asked: Filter | Logic, embedded: Sequence[Level] = ()
) -> Condition:
    """`embedded`: the levels below, any of which a filter may ask to be there or not."""
    if not isinstance(asked, Filter):
        terms = tuple(condition_of(columns, term, embedded) for term in asked.terms)
        return Group(terms, asked.is_or, asked.is_negated)
    operation = asked.operation
    if operation.operator == "is" and operation.word == "null" and not asked.field.path:
        for ordinal, child in enumerate(embedded):
            if child.name == asked.field.name:
                return EmbedTest(ordinal, is_null=not operation.is_negated)
    searches_text = operation.operator in ("fts", "plfts", "phfts", "wfts")
    column = columns.compared(asked.field, by_text_search=searches_text)
    return Test(column, operation, asked.place)


def _order(columns: Columns, table: Name, children: tuple[Node, ...], term: OrderTerm) -> Order:
    if term.relation is None:
        return Order(columns.plain(term.field), None, term.direction, term.nulls)
    for ordinal, child in enumerate(children):
        assert child.link is not None
        if child.link.name == term.relation:
            if not child.link.is_to_one:
                raise RelatedOrderError(
                    f"A related order on '{term.relation}' is not possible",
                    details=f"'{table[1]}' and '{term.relation}' do not form a many-to-one "
                    "or one-to-one relationship",
                )
            column = Column(term.field.name, term.field.path)
            return Order(column, ordinal, term.direction, term.nulls)
    raise not_embedded(term.relation)


def _alias_of(asked: SelectField, *, is_spread: bool, is_converted: bool) -> str | None:
    """The name in the answer, where it is not the one that Postgres would give."""
    if asked.alias is not None:
        return asked.alias
    if asked.aggregate is not None:
        # The level above a spread must know what the column is called.
        return asked.aggregate if is_spread else None
    if asked.field.path:
        # `data->1->mycol->>2` is called mycol, `data->3` is called data.
        keys = [step.key for step in asked.field.path if not step.is_index]
        return keys[-1] if keys else asked.field.name
    return asked.field.name if is_converted else None


def _alias(name: str, depth: int, taken: Collection[str]) -> str:
    """Of a relation at a depth; a long name is cut, so that the depth is not.

    It may be taken: by the same relation, or by a root whose own name ends as an alias does.
    """
    short = f"{name.encode()[:ALIAS_LENGTH_MAX].decode('utf-8', 'ignore')}_{depth}"
    numbered = (f"{short}_{count}" for count in range(len(taken), 2 * len(taken) + 1))
    return next(alias for alias in (short, *numbered) if alias not in taken)


def _refuse_aggregates(level: Level) -> None:
    if any(field.aggregate for field in level.fields):
        raise AggregatesDisabledError
    for child in level.children:
        _refuse_aggregates(child)
