"""A shape, sorted by level: the root relation, and below each its embedded relations. Pure.

What the query string says of a level (`clients.id=eq.1`, `clients.order=name`) is put where the
level is; a name that no level has is an error, and nothing is looked up in the database's schema.
"""

from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct, field

from butterbase.api.rest.errors import NotEmbeddedError
from butterbase.api.rest.request.model import Page
from butterbase.api.rest.request.syntax import (
    Condition,
    OrderTerm,
    Path,
    SelectField,
    SelectItem,
    SelectRelation,
    Shape,
)

T = TypeVar("T")


class Level(Struct):
    """One relation of the request; filled here, read by the planner."""

    relation: SelectRelation | None
    """None for the root."""
    fields: list[SelectField] = field(default_factory=list)
    children: "list[Level]" = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    order: tuple[OrderTerm, ...] = ()
    page: Page = Page()
    page_ordinal: int = 0
    """0 for the root's, then those of `Query.ranges` that are not the root's."""
    legacy_name: str | None = None
    """The alias it should have been called by, where it was called by its relation's name."""

    @property
    def name(self) -> str:
        """What the request calls it; empty for the root."""
        if self.relation is None:
            return ""
        return self.relation.alias or self.relation.name


def levels_of(
    shape: Shape, *, for_mutation: bool, by_target_name: bool, pages: Sequence[Page]
) -> Level:
    """The root of the tree. Raises NotEmbeddedError.

    `for_mutation`: the root's filters choose the rows to change, so they do not stand here.
    `by_target_name`: an aliased relation answers to its own name as well.
    """
    root = _level(None, shape.select)
    for path, condition in shape.conditions:
        if path or not for_mutation:
            _find(root, path, by_target_name).conditions.append(condition)
    for path, terms in shape.order:
        _find(root, path, by_target_name).order = terms
    if not for_mutation:
        for ordinal, path in enumerate(((), *filter(None, shape.ranged))):
            level = _find(root, path, by_target_name)
            level.page, level.page_ordinal = pages[ordinal], ordinal
    return root


def legacy_names(level: Level) -> list[tuple[str, str]]:
    """(relation, alias) of every level that was called by its relation's name."""
    found = [pair for child in level.children for pair in legacy_names(child)]
    if level.relation is not None and level.legacy_name is not None:
        return [(level.relation.name, level.legacy_name), *found]
    return found


def not_embedded(name: str) -> NotEmbeddedError:
    return NotEmbeddedError(
        f"'{name}' is not an embedded resource in this request",
        hint=f"Verify that '{name}' is included in the 'select' query parameter.",
    )


def _level(relation: SelectRelation | None, select: Sequence[SelectItem]) -> Level:
    level = Level(relation)
    for item in select:
        if isinstance(item, SelectField):
            level.fields.append(item)
        else:
            level.children.append(_level(item, item.select))
    return level


def _find(level: Level, path: Path, by_target_name: bool) -> Level:
    for name in path:
        level = _child(level, name, by_target_name)
    return level


def _child(level: Level, name: str, by_target_name: bool) -> Level:
    for child in level.children:
        if child.name == name:
            return child
    aliased = next((c for c in level.children if c.relation and c.relation.name == name), None)
    if aliased is None:
        raise not_embedded(name)
    if not by_target_name:
        raise NotEmbeddedError(
            f"'{name}' is not an embedded resource in this request",
            details="Target names are not allowed in filters if they have an alias",
            hint=f"Change '{name}' to '{aliased.name}' in filters, orders or limits.",
        )
    aliased.legacy_name = aliased.name
    return aliased
