"""Inserts, updates, upserts and deletes, planned: what of the request each one means. Pure."""

from msgspec import Struct
from msgspec.structs import replace
from psycopg.sql import Composed

from butterbase.api.rest.errors import InvalidPutFiltersError
from butterbase.api.rest.plan.reading import Columns, condition_of
from butterbase.api.rest.request.model import Request
from butterbase.api.rest.request.preferences import Preferences
from butterbase.api.rest.request.syntax import Shape
from butterbase.api.rest.sql import change
from butterbase.api.rest.sql.nodes import Condition, Group, Node, Test
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.sql.relations.model import ComputedRelationship, SchemaCache, Table


class Change(Struct, frozen=True):
    """An insert, update, upsert or delete to compose."""

    cache: SchemaCache
    table: Table
    request: Request
    shape: Shape
    preferences: Preferences
    node: Node

    @property
    def tells_location(self) -> bool:
        return self.request.action == "insert" and self.preferences.representation == "headers-only"

    @property
    def counts_inserted(self) -> bool:
        return self.request.action == "put" or (
            self.request.action == "insert" and self.preferences.resolution == "merge-duplicates"
        )

    @property
    def heard(self) -> Preferences:
        """The preferences that have a meaning for it."""
        given, action = self.preferences, self.request.action
        has_target = bool(self.table.primary_key) or self.shape.on_conflict is not None
        return replace(
            given,
            resolution=given.resolution if action == "insert" and has_target else None,
            missing=given.missing if action in ("insert", "update") else None,
            max_affected=given.max_affected if action in ("update", "delete") else None,
        )

    def compose(self, parameters: Parameters) -> Composed:
        name = (self.table.schema, self.table.name)
        action, returning = self.request.action, self._returning()
        if action == "delete":
            return change.delete(name, self._conditions(), returning, parameters)
        if action == "update":
            return change.update(name, self._body(), self._conditions(), returning, parameters)
        if action == "put":
            self._check_put()
            key = change.Conflict(self.table.primary_key, merges=True)
            conditions = self._conditions()
            return change.insert(name, self._body(), key, conditions, returning, parameters)
        return change.insert(name, self._body(), self._conflict(), (), returning, parameters)

    def _body(self) -> change.Body:
        return change.Body(
            change.written_columns(self.cache, self.table, self.request.keys),
            self.request.is_object,
            fills_defaults=self.preferences.missing == "default" and self.request.action != "put",
        )

    def _conflict(self) -> change.Conflict | None:
        if self.preferences.resolution is None:
            return None
        return change.Conflict(
            self.table.primary_key if self.shape.on_conflict is None else self.shape.on_conflict,
            merges=self.preferences.resolution == "merge-duplicates",
        )

    def _conditions(self) -> tuple[Condition, ...]:
        """Of the rows to change, which is no level of its own."""
        columns = Columns(self.cache, self.table)
        asked = [c for path, c in self.shape.conditions if not path]
        return tuple(condition_of(columns, condition) for condition in asked)

    def _returning(self) -> tuple[str, ...]:
        if self.preferences.representation in (None, "minimal"):
            return ()
        return needed_columns(
            self.cache, self.node, self.table.primary_key if self.tells_location else ()
        )

    def _check_put(self) -> None:
        """Raises InvalidPutFiltersError."""
        asked = [f for path, f in self.shape.filters if not path]
        names = [f.field.name for f in asked]
        is_key = sorted(names) == sorted(self.table.primary_key) and bool(names)
        by_equality = all(
            f.operation.operator == "eq"
            and not f.operation.is_negated
            and f.operation.quantifier is None
            for f in asked
        )
        if not is_key or not by_equality or self.shape.logic:
            raise InvalidPutFiltersError


def needed_columns(cache: SchemaCache, node: Node, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What the source of a node must have: answered, compared, ordered by and joined by."""
    names = [output.column.name for output in node.outputs]
    for child in node.children:
        assert child.link is not None
        relationship = child.link.relationship
        if isinstance(relationship, ComputedRelationship):
            names.append("*")  # its function takes the whole row
        else:
            junction = relationship.junction
            names += [own for own, _ in (junction.source if junction else relationship.columns)]
    names += [term.column.name for term in node.order if term.child is None]
    names += [name for condition in node.conditions for name in _compared(condition)]
    names += extra
    if "*" not in names and names:
        return tuple(dict.fromkeys(names))
    table = cache.tables.get(node.table)
    computed = [n for n in names if table is not None and n != "*" and n not in table.columns]
    return ("*", *dict.fromkeys(computed))


def _compared(condition: object) -> list[str]:
    if isinstance(condition, Test):
        return [condition.column.name]
    if isinstance(condition, Group):
        return [name for term in condition.terms for name in _compared(term)]
    return []
