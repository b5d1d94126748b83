"""Nodes → SQL: the rows of a level to be counted, whatever its page.

Embedded relations that are required or asked about are looked for, not joined. Each is written
once, however often it is asked about: the text is as long as the request, at any depth.
"""

from collections import Counter
from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier

from butterbase.api.rest.sql.conditions import condition_on
from butterbase.api.rest.sql.nodes import Condition, EmbedTest, Group, Node
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.api.rest.sql.sources import source_of, ties_of

_FALSE = SQL("false")
_TRUE = SQL("true")


def select_count(node: Node, parameters: Parameters) -> Composed:
    """One row for each row of the level."""
    required, refused = _decided(node)
    asked_count = Counter(test.child for condition in node.conditions for test in _tests(condition))
    # What groups of conditions ask about more than once, or what asks for more below: of an
    # `exists` in a group Postgres makes two plans, and in each of them two of the next one.
    joined: dict[int, Composable] = {}

    def test_embedded(test: EmbedTest) -> Composable:
        if test.child in required or test.child in refused:
            return _TRUE if (test.child in refused) == test.is_null else _FALSE
        child = node.children[test.child]
        if asked_count[test.child] == 1 and not _looks_for_more(child):
            return _exists(child, parameters, is_there=not test.is_null)
        assert child.link is not None
        alias = Identifier(child.link.alias)
        if test.child not in joined:
            joined[test.child] = SQL(
                "left join lateral ({} limit 1) as {}(is_found) on true"
            ).format(select_count(child, parameters), alias)
        return alias + SQL(".is_found is null" if test.is_null else ".is_found is not null")

    conditions = [
        condition_on(Identifier(node.alias), condition, parameters, test_embedded)
        for condition in node.conditions
        if not isinstance(condition, EmbedTest)
    ]
    conditions += ties_of(node)
    conditions += _looked_for(node, required, refused, parameters)
    clauses = [SQL("select 1"), source_of(node), *joined.values()]
    if conditions:
        clauses.append(SQL("where ") + SQL(" and ").join(conditions))
    return SQL(" ").join(clauses)


def _decided(node: Node) -> tuple[set[int], set[int]]:
    """Which children each row must have, and which it must not have."""
    asked = [condition for condition in node.conditions if isinstance(condition, EmbedTest)]
    inner = {n for n, child in enumerate(node.children) if child.link and child.link.is_inner}
    return (
        inner | {test.child for test in asked if not test.is_null},
        {test.child for test in asked if test.is_null},
    )


def _looked_for(
    node: Node, required: set[int], refused: set[int], parameters: Parameters
) -> Iterator[Composable]:
    if required & refused:  # no row is both
        yield _FALSE
        return
    for child in sorted(required | refused):
        yield _exists(node.children[child], parameters, is_there=child in required)


def _exists(child: Node, parameters: Parameters, *, is_there: bool) -> Composable:
    text = "exists ({})" if is_there else "not exists ({})"
    return SQL(text).format(select_count(child, parameters))


def _looks_for_more(node: Node) -> bool:
    is_inner = any(child.link is not None and child.link.is_inner for child in node.children)
    return is_inner or any(True for c in node.conditions for _ in _tests(c))


def _tests(condition: Condition) -> Iterator[EmbedTest]:
    if isinstance(condition, EmbedTest):
        yield condition
    elif isinstance(condition, Group):
        for term in condition.terms:
            yield from _tests(term)
