"""An expression as we know to evaluate it: types are resolved, names are Postgres's own."""

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from butterbase.realtime.changes.compiled.kinds import Kind, Value

Operator: TypeAlias = Literal["=", "<>", "<", "<=", ">", ">="]

OPERATORS: Final[tuple[Operator, ...]] = ("=", "<>", "<", "<=", ">", ">=")


class Constant(Struct, frozen=True):
    kind: Kind
    value: Value

    @property
    def children(self) -> tuple["Node", ...]:
        return ()


class ColumnValue(Struct, frozen=True):
    kind: Kind
    name: str

    @property
    def children(self) -> tuple["Node", ...]:
        return ()


class ClaimsText(Struct, frozen=True):
    """The caller's claims as JSON text: `current_setting('request.jwt.claims', true)`."""

    kind: Kind = Kind.TEXT

    @property
    def children(self) -> tuple["Node", ...]:
        return ()


class And(Struct, frozen=True):
    children: tuple["Node", ...]
    kind: Kind = Kind.BOOL


class Or(Struct, frozen=True):
    children: tuple["Node", ...]
    kind: Kind = Kind.BOOL


class Not(Struct, frozen=True):
    child: "Node"
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return (self.child,)


class Is(Struct, frozen=True):
    """`child IS NULL`, `IS TRUE`, `IS FALSE`; never NULL itself."""

    child: "Node"
    value: bool | None
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return (self.child,)


class Compare(Struct, frozen=True):
    operator: Operator
    left: "Node"
    right: "Node"
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return self.left, self.right


class Distinct(Struct, frozen=True):
    """`left IS DISTINCT FROM right`; never NULL itself."""

    left: "Node"
    right: "Node"
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return self.left, self.right


class Like(Struct, frozen=True):
    """`child LIKE pattern`, of text under a deterministic collation."""

    child: "Node"
    pattern: str
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return (self.child,)


class Cast(Struct, frozen=True):
    child: "Node"
    kind: Kind

    @property
    def children(self) -> tuple["Node", ...]:
        return (self.child,)


class Field(Struct, frozen=True):
    """`child -> key`, or `child ->> key` where the kind is TEXT."""

    child: "Node"
    key: str
    kind: Kind

    @property
    def children(self) -> tuple["Node", ...]:
        return (self.child,)


class HasKey(Struct, frozen=True):
    """`left ? right`."""

    left: "Node"
    right: "Node"
    kind: Kind = Kind.BOOL

    @property
    def children(self) -> tuple["Node", ...]:
        return self.left, self.right


class Coalesce(Struct, frozen=True):
    children: tuple["Node", ...]
    kind: Kind


Node: TypeAlias = (
    Constant
    | ColumnValue
    | ClaimsText
    | And
    | Or
    | Not
    | Is
    | Compare
    | Distinct
    | Like
    | Cast
    | Field
    | HasKey
    | Coalesce
)


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def columns_of(node: Node) -> frozenset[str]:
    return frozenset(part.name for part in walk(node) if isinstance(part, ColumnValue))


def reads_row(node: Node) -> bool:
    return any(isinstance(part, ColumnValue) for part in walk(node))


def reads_claims(node: Node) -> bool:
    return any(isinstance(part, ClaimsText) for part in walk(node))
