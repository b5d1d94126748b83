"""Which columns of tables a view shows, read out of its stored query.

Postgres keeps a view's query as a node tree, whose text has braces around nodes, `:label value`
pairs within, and a backslash before each character of a name that would be taken for syntax. Each
column of the answer is a TARGETENTRY that says where its value comes from, as long as that is one
column of one relation; through subqueries, joins and CTEs, though not through UNION.
https://github.com/postgres/postgres/blob/master/src/backend/nodes/outfuncs.c
"""

import re
from collections.abc import Container, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

_TOKEN = re.compile(
    rb"\\."
    rb"|[{}]"
    rb"|:resno (\d+) :resname (?:\\.|[^\\ \n\t])+ :ressortgroupref \d+"
    rb" :resorigtbl (\d+) :resorigcol (-?\d+) :resjunk false",
    re.DOTALL,
)

# The nodes around a column of the answer: QUERY, TARGETENTRY. Those of subqueries are further in.
_COLUMN_DEPTH = 2


class Origin(Struct, frozen=True):
    """A column of a view, and the column that it shows; both by number."""

    number: int
    relation_oid: int
    relation_number: int


Shown: TypeAlias = Mapping[tuple[int, int], tuple[int, ...]]
"""Oid and column number of a relation → the numbers of a view's columns that show it."""


def read_origins(node_tree: bytes) -> tuple[Origin, ...]:
    """The columns of `pg_rewrite.ev_action` that show another's as it is, in their order."""
    origins = []
    depth = 0
    for token in _TOKEN.finditer(node_tree):
        first = token[0][:1]
        if first == b"{":
            depth += 1
        elif first == b"}":
            depth -= 1
        elif first == b":" and depth == _COLUMN_DEPTH:
            number, relation_oid, relation_number = map(int, token.groups())
            if relation_oid:
                origins.append(Origin(number, relation_oid, relation_number))
    return tuple(origins)


def resolve(
    views: Mapping[int, Sequence[Origin]], wanted: Container[int] | None = None
) -> dict[int, Shown]:
    """What each wanted view shows, directly and through other views."""
    by_number = {
        view: {origin.number: origin for origin in origins} for view, origins in views.items()
    }
    return {view: _shown(view, by_number) for view in by_number if wanted is None or view in wanted}


def _shown(view: int, views: Mapping[int, Mapping[int, Origin]]) -> Shown:
    shown: dict[tuple[int, int], tuple[int, ...]] = {}
    for number in sorted(views[view]):
        step: Origin | None = views[view][number]
        passed: set[int] = set()
        # A cycle cannot be selected from, but `create or replace view` makes one.
        while step is not None and step.relation_oid not in passed:
            passed.add(step.relation_oid)
            end = (step.relation_oid, step.relation_number)
            shown[end] = (*shown.get(end, ()), number)
            step = views.get(step.relation_oid, {}).get(step.relation_number)
    return shown
