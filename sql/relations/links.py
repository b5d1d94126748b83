"""Foreign keys and views → how tables relate, in all the ways that PostgREST would join them.

A view takes part in a relationship when it shows all columns of the key. A table whose primary key
holds two foreign keys is a junction. A function from a row of a table stands in for what was
found under its name. Pure.
https://docs.postgrest.org/en/stable/references/api/resource_embedding.html
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import product
from typing import TypeAlias

from msgspec import Struct, structs

from butterbase.sql.relations.model import (
    AnyRelationship,
    Cardinality,
    ColumnPairs,
    ComputedRelationship,
    Junction,
    Name,
    Relationship,
)

Shows: TypeAlias = Mapping[Name, Mapping[str, tuple[str, ...]]]
"""Table → its column → the columns of a view that show it."""

Relationships: TypeAlias = dict[tuple[Name, str], tuple[AnyRelationship, ...]]

# The order in which PostgREST lists the relationships of an ambiguous request.
_RANKS = {
    Cardinality.ONE_TO_MANY: 0,
    Cardinality.MANY_TO_ONE: 1,
    Cardinality.ONE_TO_ONE: 2,
    Cardinality.MANY_TO_MANY: 3,
}


class ForeignKey(Struct, frozen=True):
    constraint: str
    table: Name
    other: Name
    columns: ColumnPairs
    is_unique: bool = False
    """Whether its own columns are a primary key or a unique constraint."""


class PrimaryKey(Struct, frozen=True):
    table: Name
    columns: tuple[str, ...]


class _End(Struct, frozen=True):
    """A table or view as a side of a foreign key."""

    relation: Name
    columns: tuple[str, ...]
    is_view: bool = False


def view_primary_key(shows: Shows, keys: Iterable[PrimaryKey]) -> tuple[str, ...]:
    """Those columns of a view that are the keys of the tables it shows whole keys of."""
    names: list[str] = []
    for key in sorted(keys, key=lambda key: key.table):
        columns = shows.get(key.table, {})
        if all(column in columns for column in key.columns):
            names += (columns[column][0] for column in key.columns)
    return tuple(dict.fromkeys(names))


def link(
    foreign_keys: Iterable[ForeignKey],
    computed: Iterable[ComputedRelationship],
    views: Mapping[Name, Shows],
    primary_keys: Mapping[Name, tuple[str, ...]],
    schemas: Container[str],
) -> Relationships:
    """All relationships between what stands in the schemas; the primary keys have the views' too.

    A table that relates only through what stands in none of them is there with no relationship:
    that tells it from one without any.
    """
    to_one = [key for key in _with_views(foreign_keys, views) if key.other[0] in schemas]
    found: dict[tuple[Name, Name], list[AnyRelationship]] = defaultdict(list)
    for key in (*to_one, *map(_inverse, to_one), *_many_to_many(to_one, primary_keys)):
        found[key.table, key.other].append(key)
    for function in computed:
        found[function.table, function.function] = [function]

    grouped: dict[tuple[Name, str], list[AnyRelationship]] = defaultdict(list)
    for (table, (schema, _)), relationships in found.items():
        if table[0] in schemas:
            grouped[table, schema] += (r for r in relationships if _is_exposed(r, schemas))
    return {key: tuple(sorted(group, key=_order)) for key, group in grouped.items()}


def _is_exposed(relationship: AnyRelationship, schemas: Container[str]) -> bool:
    junction = relationship.junction if isinstance(relationship, Relationship) else None
    return relationship.other[0] in schemas and (junction is None or junction.table[0] in schemas)


def _order(relationship: AnyRelationship) -> tuple[object, ...]:
    match relationship:
        case Relationship():
            return (
                0,
                relationship.table,
                relationship.other,
                relationship.is_self,
                _RANKS[relationship.cardinality],
                relationship.constraint,
                relationship.columns,
                relationship.is_parent,
                relationship.junction and structs.astuple(relationship.junction),
                relationship.table_is_view,
                relationship.other_is_view,
            )
        case ComputedRelationship():
            return (1, *structs.astuple(relationship))


def _with_views(
    foreign_keys: Iterable[ForeignKey], views: Mapping[Name, Shows]
) -> Iterator[Relationship]:
    """Each foreign key between tables, and between each view of the one and of the other."""
    views_of: dict[Name, list[tuple[Name, Mapping[str, tuple[str, ...]]]]] = defaultdict(list)
    for view, shows in views.items():
        for table, columns in shows.items():
            views_of[table].append((view, columns))

    def ends(table: Name, key: tuple[str, ...]) -> Iterator[_End]:
        yield _End(table, key)
        for view, columns in views_of[table]:
            # Shown twice, a column makes two keys; left out, none.
            for shown in product(*(columns.get(column, ()) for column in key)):
                yield _End(view, shown, is_view=True)

    for key in foreign_keys:
        own, others = zip(*key.columns, strict=True)
        for end, other in product(ends(key.table, own), list(ends(key.other, others))):
            yield _to_one(key, end, other)


def _to_one(key: ForeignKey, end: _End, other: _End) -> Relationship:
    return Relationship(
        table=end.relation,
        other=other.relation,
        cardinality=Cardinality.ONE_TO_ONE if key.is_unique else Cardinality.MANY_TO_ONE,
        constraint=key.constraint,
        columns=tuple(zip(end.columns, other.columns, strict=True)),
        is_self=end.relation == other.relation,
        table_is_view=end.is_view,
        other_is_view=other.is_view,
    )


def _inverse(relationship: Relationship) -> Relationship:
    is_one_to_one = relationship.cardinality is Cardinality.ONE_TO_ONE
    return structs.replace(
        relationship,
        table=relationship.other,
        other=relationship.table,
        cardinality=relationship.cardinality if is_one_to_one else Cardinality.ONE_TO_MANY,
        columns=_swapped(relationship.columns),
        is_parent=is_one_to_one,
        table_is_view=relationship.other_is_view,
        other_is_view=relationship.table_is_view,
    )


def _many_to_many(
    to_one: Iterable[Relationship], primary_keys: Mapping[Name, tuple[str, ...]]
) -> Iterator[Relationship]:
    """A relationship for each two foreign keys within one primary key."""
    of_junctions: dict[Name, list[Relationship]] = defaultdict(list)
    for key in to_one:
        own = {column for column, _ in key.columns}
        if key.cardinality is Cardinality.MANY_TO_ONE and own.issubset(
            primary_keys.get(key.table, ())
        ):
            of_junctions[key.table].append(key)
    for junction, keys in of_junctions.items():
        for source, target in product(keys, keys):
            if source.constraint != target.constraint:
                yield Relationship(
                    table=source.other,
                    other=target.other,
                    cardinality=Cardinality.MANY_TO_MANY,
                    junction=Junction(
                        table=junction,
                        constraint1=source.constraint,
                        constraint2=target.constraint,
                        source=_swapped(source.columns),
                        target=_swapped(target.columns),
                    ),
                    is_self=source.other == target.other,
                    table_is_view=source.other_is_view,
                    other_is_view=target.other_is_view,
                )


def _swapped(columns: ColumnPairs) -> ColumnPairs:
    return tuple((other, own) for own, other in columns)
