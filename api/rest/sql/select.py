"""Nodes → SQL: the select of a level, with the levels below it joined laterally.

SQL is put together from psycopg's composable values alone: names are quoted, texts of the request
become literals or, where they vary between requests of one shape, parameters.
"""

from psycopg.sql import SQL, Composable, Composed, Identifier

from butterbase.api.rest.sql.conditions import call, column_of, condition_on
from butterbase.api.rest.sql.nodes import (
    Column,
    Condition,
    EmbedTest,
    Node,
    Order,
    Output,
    exports,
    is_aggregated,
)
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.api.rest.sql.sources import source_of, ties_of

_GRAMMAR_TYPES = frozenset(
    {
        "bigint",
        "bit",
        "bit varying",
        "boolean",
        "char",
        "char varying",
        "character",
        "character varying",
        "dec",
        "decimal",
        "double precision",
        "float",
        "int",
        "integer",
        "interval",
        "national char",
        "national character",
        "nchar",
        "numeric",
        "real",
        "smallint",
        "time",
        "time with time zone",
        "time without time zone",
        "timestamp",
        "timestamp with time zone",
        "timestamp without time zone",
        "varchar",
    }
)
"""Names of types that are words of SQL: https://www.postgresql.org/docs/current/datatype.html"""


def select(node: Node, parameters: Parameters) -> Composed:
    """The rows of a level, each with its embedded relations as members."""
    outputs = _outputs(node)
    if node.link is not None and node.is_spread_of_many:
        outputs += [_order_output(node, n, term) for n, term in enumerate(node.order)]
    clauses = [SQL("select ") + SQL(", ").join(outputs), source_of(node)]
    clauses += [_join(child, parameters) for child in node.children]
    conditions = [_condition(node, c, parameters) for c in node.conditions]
    conditions += ties_of(node)
    if conditions:
        clauses.append(SQL("where ") + SQL(" and ").join(conditions))
    if is_aggregated(node):
        clauses += _group_by(node)
    if node.order and not node.is_spread_of_many:
        clauses.append(SQL("order by ") + SQL(", ").join(_order(node, t) for t in node.order))
    clauses += _page(node, parameters)
    return SQL(" ").join(clauses)


# A level's select list


def _outputs(node: Node) -> list[Composable]:
    alias = Identifier(node.alias)
    found = [_output(alias, o, is_raw=node.defers_aggregates) for o in node.outputs]
    for child in node.children:
        assert child.link is not None
        if child.link.is_spread:
            found += _spread(node, child)
        elif not child.is_empty:
            found.append(_member(node, child))
    if found or node.link is not None:
        return found or [SQL("1")]
    return [alias + SQL(".*")]


def _output(alias: Composable, output: Output, *, is_raw: bool) -> Composable:
    expression = column_of(alias, output.column)
    if output.column.convert is not None:
        expression = call(output.column.convert, expression)
    expression = _cast(expression, output.cast)
    if output.aggregate is not None and not is_raw:
        expression = _aggregate(expression, output.aggregate, output.aggregate_cast, output.column)
    return expression if output.alias is None else _named(expression, output.alias)


def _aggregate(
    expression: Composable, aggregate: str, cast: str | None, column: Column | None = None
) -> Composable:
    if column is not None and column.name == "*" and not column.is_row:
        expression = SQL("*")
    return _cast(SQL(aggregate) + SQL("({})").format(expression), cast)


def _spread(node: Node, child: Node) -> list[Composable]:
    assert child.link is not None
    alias = Identifier(child.link.alias)
    found: list[Composable] = []
    for export in exports(child):
        if export.name == "*":
            found.append(alias + SQL(".*"))
            continue
        expression: Composable = alias + SQL(".") + Identifier(export.name)
        if export.aggregate is not None and not node.defers_aggregates:
            expression = _aggregate(expression, export.aggregate, export.aggregate_cast)
            expression = _named(expression, export.name)
        found.append(expression)
    return found


def _member(node: Node, child: Node) -> Composable:
    assert child.link is not None
    alias = Identifier(child.link.alias)
    # Rows are grouped by their members too, which json, other than jsonb, cannot be.
    kind = SQL("::jsonb" if is_aggregated(node) or node.defers_aggregates else "")
    if child.link.is_to_one:
        expression = SQL("row_to_json({}.*)").format(alias) + kind
    else:
        expression = SQL("coalesce({0}.{0}, '[]')").format(alias) + kind
    return _named(expression, child.link.name)


def _group_by(node: Node) -> list[Composable]:
    """By place in the select list, since a name could be a column's or an alias."""
    places = [n for n, o in enumerate(node.outputs, 1) if o.aggregate is None]
    place = len(node.outputs)
    for child in node.children:
        assert child.link is not None
        if child.link.is_spread:
            for export in exports(child):
                place += 1
                if export.aggregate is None:
                    places.append(place)
        elif not child.is_empty:
            place += 1
            places.append(place)
    return [SQL("group by " + ", ".join(map(str, places)))] if places else []


# Levels below


def _join(child: Node, parameters: Parameters) -> Composable:
    assert child.link is not None
    alias = Identifier(child.link.alias)
    rows: Composable = select(child, parameters)
    on: Composable = SQL("true")
    if not child.link.is_to_one:
        rows = _gathered(child, alias, rows)
        if child.link.is_inner:
            on = SQL("{0}.{0} is not null").format(alias)
    join = SQL(
        "join lateral ({}) as {} on {}"
        if child.link.is_inner
        else "left join lateral ({}) as {} on {}"
    )
    return join.format(rows, alias, on)


def _gathered(child: Node, alias: Identifier, rows: Composable) -> Composable:
    """Many rows as one: as an array of objects or, spread, as an array of each column's values."""
    # `.*`: a column may be called as the relation is.
    columns: list[Composable] = [_named(SQL("json_agg({}.*)").format(alias), alias)]
    if child.link is not None and child.link.is_spread:
        columns[0] = _named(SQL("json_agg({}.*)::jsonb").format(alias), alias)
        order: Composable = SQL("")
        if child.order:
            keys = [
                alias + SQL(".") + _order_alias(n) + _direction(term)
                for n, term in enumerate(child.order)
            ]
            order = SQL(" order by ") + SQL(", ").join(keys)
        for export in exports(child):
            value = alias + SQL(".") + Identifier(export.name)
            columns.append(
                _named(
                    SQL("coalesce(json_agg({}{}), '[]')::jsonb").format(value, order), export.name
                )
            )
    return SQL("select {} from ({}) as {}").format(SQL(", ").join(columns), rows, alias)


# Conditions


def _condition(node: Node, condition: Condition, parameters: Parameters) -> Composable:
    def test_embedded(test: EmbedTest) -> Composable:
        child = node.children[test.child]
        assert child.link is not None
        alias: Composable = Identifier(child.link.alias)
        if not child.link.is_to_one:
            alias = alias + SQL(".") + alias
        is_null = " is not distinct from null" if test.is_null else " is distinct from null"
        return alias + SQL(is_null)

    return condition_on(Identifier(node.alias), condition, parameters, test_embedded)


# Order and page


def _order(node: Node, term: Order) -> Composable:
    return _order_key(node, term) + _direction(term)


def _order_key(node: Node, term: Order) -> Composable:
    alias = node.alias
    if term.child is not None:
        link = node.children[term.child].link
        assert link is not None
        alias = link.alias
    return column_of(Identifier(alias), term.column)


def _order_output(node: Node, ordinal: int, term: Order) -> Composable:
    return _named(_order_key(node, term), _order_alias(ordinal))


def _order_alias(ordinal: int) -> Identifier:
    return Identifier(f"butterbase_order_{ordinal}")


def _direction(term: Order) -> SQL:
    words = [term.direction or "", f"nulls {term.nulls}" if term.nulls else ""]
    return SQL("".join(f" {word}" for word in words if word))


def _page(node: Node, parameters: Parameters) -> list[Composable]:
    page, most = node.page, node.row_count_max
    found: list[Composable] = []
    if page.limit is not None:
        limit = page.limit if most is None else min(page.limit, most)
        found.append(SQL(f"limit {limit:d}"))
    elif page.has_limit:
        found.append(SQL("limit ") + parameters.limit(node.page_ordinal))
    elif most is not None:
        found.append(SQL(f"limit {most:d}"))
    if page.has_offset:
        found.append(SQL("offset ") + parameters.offset(node.page_ordinal))
    return found


# Small parts


def _named(expression: Composable, alias: "str | Identifier") -> Composed:
    name = Identifier(alias) if isinstance(alias, str) else alias
    return expression + SQL(" as ") + name


def _cast(expression: Composable, cast: str | None) -> Composable:
    if cast is None:
        return expression
    words = " ".join(cast.lower().split())
    # The grammar's own names are no types of the catalogs; all others are, and are quoted.
    kind: Composable = SQL(words) if words in _GRAMMAR_TYPES else Identifier(words)
    return SQL("cast({} as {})").format(expression, kind)
