"""What a database's schemas hold, as PostgREST sees them: tables, how they relate, functions.

A SchemaCache is a value: it is built once from the catalogs (introspect.py), never changed, and
replaced whole when the schema changes, so that a request keeps the one it began with.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

Name: TypeAlias = tuple[str, str]
"""Schema and name."""

ColumnPairs: TypeAlias = tuple[tuple[str, str], ...]
"""Columns that are equal in a join: the relation's own, and the other's."""


class Column(Struct, frozen=True):
    name: str
    type: str
    """The base type of a domain, else the type; without modifiers for Postgres's own types."""
    nominal_type: str
    """The type as declared, a domain's own name included."""
    is_nullable: bool = True
    description: str | None = None
    max_length: int | None = None
    default: str | None = None
    """An SQL expression."""
    enum: tuple[str, ...] = ()


class Table(Struct, frozen=True):
    """A table, view, materialized view or foreign table."""

    schema: str
    name: str
    columns: Mapping[str, Column]
    """In the table's order."""
    primary_key: tuple[str, ...] = ()
    """By name; a view's are those of the tables it selects from."""
    description: str | None = None
    is_view: bool = False
    is_insertable: bool = True
    is_updatable: bool = True
    is_deletable: bool = True


class Cardinality(Enum):
    """How many rows of the other stand beside one row of the table, and the reverse."""

    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    ONE_TO_ONE = "one-to-one"
    MANY_TO_MANY = "many-to-many"


class Junction(Struct, frozen=True, order=True):
    """The table between the two of a many-to-many relationship."""

    table: Name
    constraint1: str
    constraint2: str
    source: ColumnPairs
    """The table's column, the junction's column."""
    target: ColumnPairs
    """The other table's column, the junction's column."""


class Relationship(Struct, frozen=True, tag=True):
    """A foreign key, seen from one of its sides; or two of them around a junction."""

    table: Name
    other: Name
    cardinality: Cardinality
    constraint: str = ""
    columns: ColumnPairs = ()
    """Empty for many-to-many."""
    junction: Junction | None = None
    is_self: bool = False
    is_parent: bool = False
    """Of one-to-one: the other holds the foreign key."""
    table_is_view: bool = False
    other_is_view: bool = False

    @property
    def is_to_one(self) -> bool:
        return self.cardinality in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_ONE)


class ComputedRelationship(Struct, frozen=True, tag=True):
    """A function from a row of the table to rows of the other."""

    function: Name
    table: Name
    other: Name
    is_to_one: bool
    is_self: bool = False


AnyRelationship: TypeAlias = Relationship | ComputedRelationship


class Parameter(Struct, frozen=True):
    name: str
    """Empty when it has none."""
    type: str
    call_type: str
    """The type to cast an argument to: `bit` and `character` without their lengths."""
    is_required: bool = True
    is_variadic: bool = False


class Volatility(Enum):
    IMMUTABLE = "i"
    STABLE = "s"
    VOLATILE = "v"


class Routine(Struct, frozen=True):
    schema: str
    name: str
    parameters: tuple[Parameter, ...]
    returns: Name
    """The type; of a composite type its relation."""
    returns_set: bool = False
    returns_composite: bool = False
    returns_composite_alias: bool = False
    """Whether the composite is reached through a domain."""
    volatility: Volatility = Volatility.VOLATILE
    is_variadic: bool = False
    isolation_level: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    """`SET` clauses to apply to the whole transaction."""
    description: str | None = None
    oid: int = 0

    @property
    def returns_scalar(self) -> bool:
        return not self.returns_composite and not self.returns_set

    @property
    def returns_set_of_scalar(self) -> bool:
        return not self.returns_composite and self.returns_set

    @property
    def returns_void(self) -> bool:
        return self.returns_scalar and self.returns == ("pg_catalog", "void")


class MediaHandler(Struct, frozen=True):
    """What makes a media type of a relation's rows, of any element, or of a function's answer."""

    function: Name
    """An aggregate; of a function that answers with the media type, the domain it returns."""
    target: Name | None
    """The relation or function whose answers it handles; None for anyelement."""
    media_type: str
    """What a client asks for, lowercase; may be `*/*`."""
    answered_type: str
    """The Content-Type of the answer."""


class SchemaCache(Struct, frozen=True):
    tables: Mapping[Name, Table] = {}
    relationships: Mapping[tuple[Name, str], tuple[AnyRelationship, ...]] = {}
    """By table and the other's schema, in a stable order.

    Empty for a table that relates only through what is not exposed. A computed one stands under
    the schema of its function.
    """
    routines: Mapping[Name, tuple[Routine, ...]] = {}
    """Overloads stand together, the one with the fewest parameters first."""
    representations: Mapping[tuple[str, str], str] = {}
    """(source type, target type) → function, of the implicit casts of domains."""
    handlers: Mapping[tuple[Name | None, str], MediaHandler] = {}
    """By target and media type."""
    role_settings: Mapping[str, tuple[tuple[str, str], ...]] = {}
    """Role → settings that a transaction as that role gets (`alter role … set`)."""
    role_isolation: Mapping[str, str] = {}
    """Role → its default_transaction_isolation."""
    server_version: int = 0
    """As in `server_version_num`, 180001."""
