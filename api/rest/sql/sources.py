"""Nodes → SQL: where a level's rows come from, and what ties them to the level above."""

from psycopg.sql import SQL, Composable, Identifier

from butterbase.api.rest.sql.nodes import Node
from butterbase.sql.relations.model import ComputedRelationship, Name, Relationship


def source_of(node: Node) -> Composable:
    """The `from` clause."""
    alias = Identifier(node.alias)
    relationship = node.link.relationship if node.link else None
    if isinstance(relationship, ComputedRelationship):
        assert node.link is not None
        return SQL("from {}({}::{}) as {}").format(
            Identifier(*relationship.function),
            Identifier(node.link.parent_alias),
            Identifier(*relationship.table),
            alias,
        )
    source = SQL("from {} as {}").format(_name(node.source), alias)
    if relationship is None or relationship.junction is None:
        return source
    junction = relationship.junction
    joined = _junction_alias(node)
    on = [
        SQL("{}.{} = {}.{}").format(alias, Identifier(own), joined, Identifier(theirs))
        for own, theirs in junction.target
    ]
    return source + SQL(" join {} as {} on {}").format(
        Identifier(*junction.table), joined, SQL(" and ").join(on)
    )


def ties_of(node: Node) -> list[Composable]:
    """The conditions that tie a row to its parent's."""
    if node.link is None or not isinstance(node.link.relationship, Relationship):
        return []
    parent, relationship = Identifier(node.link.parent_alias), node.link.relationship
    if relationship.junction is not None:
        alias, pairs = _junction_alias(node), relationship.junction.source
    else:
        alias, pairs = Identifier(node.alias), relationship.columns
    return [
        SQL("{}.{} = {}.{}").format(alias, Identifier(theirs), parent, Identifier(own))
        for own, theirs in pairs
    ]


def _junction_alias(node: Node) -> Identifier:
    assert node.link is not None
    return Identifier(f"{node.alias}_junction")


def _name(name: Name) -> Identifier:
    """A name whose schema is empty is a CTE's."""
    return Identifier(*name) if name[0] else Identifier(name[1])
