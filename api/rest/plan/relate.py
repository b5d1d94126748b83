"""Which relationship an embedding means: the target's name and hint against the schema cache. Pure.

https://docs.postgrest.org/en/stable/references/api/resource_embedding.html
"""

from butterbase.api.rest.errors import AmbiguousRelationshipError, NoRelationshipError
from butterbase.sql.relations.hints import relationship_hint
from butterbase.sql.relations.model import (
    AnyRelationship,
    Cardinality,
    ComputedRelationship,
    Relationship,
    SchemaCache,
)


def find_relationship(
    cache: SchemaCache, schema: str, origin: str, target: str, hint: str | None
) -> AnyRelationship:
    """Raises NoRelationshipError, AmbiguousRelationshipError."""
    of_origin = cache.relationships.get(((schema, origin), schema), ())
    found = [r for r in of_origin if _is_meant(r, target, hint)]
    if len(found) == 1:
        return found[0]
    if not found:
        using = "" if hint is None else f"' using the hint '{hint}"
        raise NoRelationshipError(
            f"Could not find a relationship between '{origin}' and '{target}' in the schema cache",
            details="Searched for a foreign key relationship between "
            f"'{origin}' and '{target}{using}' in the schema '{schema}', "
            "but no matches were found.",
            hint=relationship_hint(cache, schema, origin, target),
        )
    choices = ", ".join(f"'{_other_name(r)}!{_hint_of(r)}'" for r in found)
    raise AmbiguousRelationshipError(
        "Could not embed because more than one relationship was found "
        f"for '{origin}' and '{target}'",
        details=[_described(r) for r in found],
        hint=f"Try changing '{target}' to one of the following: {choices}. "
        "Find the desired relationship in the 'details' key.",
    )


def _is_meant(relationship: AnyRelationship, target: str, hint: str | None) -> bool:
    if isinstance(relationship, ComputedRelationship):
        return target == relationship.function[1]
    if relationship.is_self:
        return _is_meant_of_itself(relationship, target, hint)
    names_other = target == relationship.other[1]
    if hint is None:
        names_key = target in (_constraint(relationship), _own_column(relationship))
        return names_other or (names_key and not relationship.other_is_view)
    return names_other and hint in (
        _constraint(relationship),
        _own_column(relationship),
        _other_column(relationship),
        relationship.junction and relationship.junction.table[1],
    )


def _is_meant_of_itself(relationship: Relationship, target: str, hint: str | None) -> bool:
    """One key makes two relationships: the table's name means the many, the column the one."""
    is_to_many = relationship.cardinality is Cardinality.ONE_TO_MANY
    if target == relationship.other[1] and is_to_many:
        return hint is None or hint == _other_column(relationship)
    is_to_one = relationship.cardinality is Cardinality.MANY_TO_ONE
    return hint is None and is_to_one and target == _own_column(relationship)


def _constraint(relationship: Relationship) -> str | None:
    return relationship.constraint if relationship.junction is None else None


def _own_column(relationship: Relationship) -> str | None:
    return relationship.columns[0][0] if len(relationship.columns) == 1 else None


def _other_column(relationship: Relationship) -> str | None:
    return relationship.columns[0][1] if len(relationship.columns) == 1 else None


def _other_name(relationship: AnyRelationship) -> str:
    return relationship.other[1]


def _hint_of(relationship: AnyRelationship) -> str:
    if isinstance(relationship, ComputedRelationship):
        return relationship.function[1]
    if relationship.junction is not None:
        return relationship.junction.table[1]
    return relationship.constraint


def _described(relationship: AnyRelationship) -> dict[str, str]:
    if isinstance(relationship, ComputedRelationship):
        return {}
    table, other = relationship.table[1], relationship.other[1]
    if relationship.junction is not None:
        junction = relationship.junction
        source = ", ".join(theirs for _, theirs in junction.source)
        aim = ", ".join(theirs for _, theirs in junction.target)
        using = (
            f"{junction.table[1]} using {junction.constraint1}({source}) "
            f"and {junction.constraint2}({aim})"
        )
    else:
        own = ", ".join(own for own, _ in relationship.columns)
        theirs = ", ".join(theirs for _, theirs in relationship.columns)
        using = f"{relationship.constraint} using {table}({own}) and {other}({theirs})"
    return {
        "cardinality": relationship.cardinality.value,
        "embedding": f"{table} with {other}",
        "relationship": using,
    }
