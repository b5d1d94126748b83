"""A table → the schema of its rows, with the notes on keys that clients read."""

from typing import TypeAlias

from butterbase.api.rest.openapi.members import Json, given
from butterbase.api.rest.openapi.types import default_of, schema_of_type
from butterbase.sql.relations.model import (
    Cardinality,
    Column,
    Relationship,
    SchemaCache,
    Table,
)

_Reference: TypeAlias = tuple[str, str]
"""The table and the column that a column refers to."""


def define(cache: SchemaCache, table: Table) -> Json:
    columns = table.columns.values()
    references = _references(cache, table)
    return given(
        type="object",
        description=table.description,
        properties={c.name: _property(table, c, references.get(c.name)) for c in columns},
        required=[column.name for column in columns if not column.is_nullable] or None,
    )


def _references(cache: SchemaCache, table: Table) -> dict[str, _Reference]:
    """By column, of foreign keys that have no other; to a table rather than a view of it."""
    related = [
        relationship
        for relationship in cache.relationships.get(((table.schema, table.name), table.schema), ())
        if isinstance(relationship, Relationship)
    ]
    references: dict[str, _Reference] = {}
    for relationship in sorted(related, key=lambda r: r.other_is_view):
        if _refers(relationship) and len(relationship.columns) == 1:
            ((own, other),) = relationship.columns
            references.setdefault(own, (relationship.other[1], other))
    return references


def _refers(relationship: Relationship) -> bool:
    """Whether the foreign key is the table's own."""
    if relationship.cardinality is Cardinality.ONE_TO_ONE:
        return not relationship.is_parent
    return relationship.cardinality is Cardinality.MANY_TO_ONE


def _property(table: Table, column: Column, reference: _Reference | None) -> Json:
    return schema_of_type(column.type) | given(
        description=_described(table, column, reference),
        default=default_of(column),
        enum=list(column.enum) or None,
        maxLength=column.max_length,
    )


def _described(table: Table, column: Column, reference: _Reference | None) -> str | None:
    notes = []
    if column.name in table.primary_key:
        notes.append("This is a Primary Key.<pk/>")
    if reference is not None:
        other, key = reference
        tag = f"<fk table='{other}' column='{key}'/>"
        notes.append(f"This is a Foreign Key to `{other}.{key}`.{tag}")
    if not notes:
        return column.description
    comment = "" if column.description is None else f"{column.description}\n\n"
    return comment + "\n".join(["Note:", *notes])
