"""SQL text of a policy → nodes, or UncompilableError for whatever is not known to the last detail.

The text is `pg_get_expr`'s: every operator in parentheses, every conversion written out as a cast,
so that the types of operands are known without Postgres's rules of resolution. sqlglot reads it;
a part of its tree that says more than we expect (an argument, a modifier) is refused.
https://www.postgresql.org/docs/current/functions-info.html
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

import sqlglot
from msgspec import Struct
from sqlglot import exp

from butterbase.realtime.changes.compiled.casts import is_castable, literal
from butterbase.realtime.changes.compiled.errors import UncompilableError
from butterbase.realtime.changes.compiled.kinds import Kind, is_comparable
from butterbase.realtime.changes.compiled.nodes import (
    And,
    Cast,
    ClaimsText,
    Coalesce,
    ColumnValue,
    Compare,
    Constant,
    Distinct,
    Field,
    HasKey,
    Is,
    Node,
    Not,
    Operator,
    Or,
)

_EXPRESSION_LENGTH_MAX: Final = 10_000
_CLAIMS_SETTING: Final = "request.jwt.claims"

_KINDS: Final[dict[object, Kind]] = {
    exp.DataType.Type.BOOLEAN: Kind.BOOL,
    exp.DataType.Type.SMALLINT: Kind.INT2,
    exp.DataType.Type.INT: Kind.INT4,
    exp.DataType.Type.BIGINT: Kind.INT8,
    exp.DataType.Type.DECIMAL: Kind.NUMERIC,
    exp.DataType.Type.DOUBLE: Kind.FLOAT8,
    exp.DataType.Type.TEXT: Kind.TEXT,
    exp.DataType.Type.VARCHAR: Kind.TEXT,
    exp.DataType.Type.BPCHAR: Kind.BPCHAR,
    exp.DataType.Type.UUID: Kind.UUID,
    exp.DataType.Type.DATE: Kind.DATE,
    exp.DataType.Type.TIMESTAMP: Kind.TIMESTAMP,
    exp.DataType.Type.TIMESTAMPTZ: Kind.TIMESTAMPTZ,
    exp.DataType.Type.TIME: Kind.TIME,
    exp.DataType.Type.JSON: Kind.JSON,
    exp.DataType.Type.JSONB: Kind.JSONB,
}

_OPERATORS: Final[dict[type, Operator]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}


def _jwt() -> Node:
    return Cast(ClaimsText(), Kind.JSONB)


def _claim(name: str) -> Node:
    return Field(_jwt(), name, Kind.TEXT)


FUNCTIONS: Final[dict[tuple[str, str], Node]] = {
    ("auth", "jwt"): _jwt(),
    ("auth", "uid"): Cast(_claim("sub"), Kind.UUID),
    ("auth", "role"): _claim("role"),
    ("auth", "email"): _claim("email"),
}
"""What our functions come to, as long as they are the ones we installed."""


class Names(Struct, frozen=True):
    """What the names of an expression stand for."""

    table: str
    columns: Mapping[str, Kind]
    functions: frozenset[tuple[str, str]]
    """Those of FUNCTIONS that are ours."""


def parse(text: str, names: Names) -> Node:
    """The condition of a policy. Raises UncompilableError."""
    if len(text) > _EXPRESSION_LENGTH_MAX:
        raise UncompilableError("a long expression")
    try:
        (tree,) = sqlglot.parse(text, dialect="postgres")
        assert isinstance(tree, exp.Expression)
        node = _Reader(names).read(tree)
    except UncompilableError:
        raise
    except Exception as error:  # whatever it is that sqlglot stumbles over
        raise UncompilableError(f"{type(error).__name__}: {error}") from error
    if node.kind is not Kind.BOOL:
        raise UncompilableError("not a condition")
    return node


class _Reader:
    def __init__(self, names: Names) -> None:
        self._names = names
        self._readers: Final[dict[type[exp.Expression], Callable[..., Node]]] = {
            exp.Paren: self._paren,
            exp.Subquery: self._subquery,
            exp.And: self._connective,
            exp.Or: self._connective,
            exp.Not: self._not,
            exp.Is: self._is,
            exp.NullSafeNEQ: self._distinct,
            exp.Cast: self._cast,
            exp.Column: self._column,
            exp.Dot: self._function,
            exp.Anonymous: self._setting,
            exp.Boolean: self._boolean,
            exp.Literal: self._number,
            exp.JSONExtract: self._field,
            exp.JSONExtractScalar: self._field,
            exp.JSONBContainsTopKey: self._has_key,
            exp.Coalesce: self._coalesce,
            **dict.fromkeys(_OPERATORS, self._compare),
        }

    def read(self, tree: exp.Expression) -> Node:
        reader = self._readers.get(type(tree))
        if reader is None:
            raise UncompilableError(f"{type(tree).__name__} is not compiled")
        return reader(tree)

    def _bool(self, tree: exp.Expression) -> Node:
        node = self.read(tree)
        if node.kind is not Kind.BOOL:
            raise UncompilableError("a condition is not boolean")
        return node

    # Structure

    def _paren(self, tree: exp.Paren) -> Node:
        _only(tree, "this")
        return self.read(tree.this)

    def _subquery(self, tree: exp.Subquery) -> Node:
        """`( SELECT auth.uid() AS uid)`: without FROM it is its expression."""
        _only(tree, "this")
        select = tree.this
        if type(select) is not exp.Select:
            raise UncompilableError("a subquery")
        _only(select, "expressions")
        (inner,) = _some(select.expressions, 1)
        if type(inner) is exp.Alias:
            _only(inner, "this", "alias")
            inner = inner.this
        return self.read(inner)

    def _connective(self, tree: exp.And | exp.Or) -> Node:
        _only(tree, "this", "expression")
        wanted = type(tree)
        parts: list[exp.Expression] = []
        rest: exp.Expression = tree
        while type(rest) is wanted:  # `a AND b AND c` leans to the left
            parts.append(rest.expression)
            rest = rest.this
        children = tuple(self._bool(part) for part in [rest, *reversed(parts)])
        return And(children) if wanted is exp.And else Or(children)

    def _not(self, tree: exp.Not) -> Node:
        _only(tree, "this")
        return Not(self._bool(tree.this))

    def _is(self, tree: exp.Is) -> Node:
        _only(tree, "this", "expression", "negate")
        child, asked = self.read(tree.this), tree.expression
        if type(asked) is exp.Null:
            node: Node = Is(child, None)
        elif type(asked) is exp.Boolean and child.kind is Kind.BOOL:
            node = Is(child, bool(asked.this))
        else:
            raise UncompilableError("IS something else")
        return Not(node) if tree.args.get("negate") else node

    def _coalesce(self, tree: exp.Coalesce) -> Node:
        _only(tree, "this", "expressions")
        children = tuple(self.read(part) for part in [tree.this, *tree.expressions])
        kinds = {child.kind for child in children}
        if len(kinds) != 1 or Kind.OTHER in kinds:
            raise UncompilableError("COALESCE of different types")
        return Coalesce(children, kinds.pop())

    # Comparisons

    def _compare(self, tree: exp.Expression) -> Node:
        _only(tree, "this", "expression")
        operator, right = _OPERATORS[type(tree)], tree.expression
        left = self.read(tree.this)
        if type(right) is exp.Any and operator == "=":
            _only(right, "this")
            return Or(self._each("=", left, right.this))
        if type(right) is exp.Anonymous and right.this == "ALL" and operator == "<>":
            _only(right, "this", "expressions")
            (array,) = _some(right.expressions, 1)
            return And(self._each("<>", left, array))
        return _comparison(operator, left, self.read(right))

    def _each(self, operator: Operator, left: Node, array: exp.Expression) -> tuple[Node, ...]:
        """The comparisons that `= ANY (ARRAY[…])` and `<> ALL (ARRAY[…])` stand for."""
        element_kind = None
        while type(array) in (exp.Paren, exp.Cast):
            if type(array) is exp.Cast:
                element_kind = element_kind or _element_kind(array)
            array = array.this
        if type(array) is not exp.Array:
            raise UncompilableError("not a list of elements")
        _only(array, "expressions")
        elements = [self.read(element) for element in array.expressions]
        # (ARRAY['a'::character varying])::text[]: the elements are cast.
        if element_kind is not None:
            elements = [_converted(element, element_kind) for element in elements]
        return tuple(_comparison(operator, left, element) for element in elements)

    def _distinct(self, tree: exp.NullSafeNEQ) -> Node:
        _only(tree, "this", "expression")
        left, right = self.read(tree.this), self.read(tree.expression)
        _check_comparable("=", left, right)
        return Distinct(left, right)

    # Values

    def _cast(self, tree: exp.Cast) -> Node:
        _only(tree, "this", "to")
        kind, inner = _kind(tree.args["to"]), tree.this
        if type(inner) is exp.Null:
            return Constant(kind, None)
        if type(inner) is exp.Literal and inner.is_string:
            return Constant(kind, literal(kind, inner.this))
        return _converted(self.read(inner), kind)

    def _column(self, tree: exp.Column) -> Node:
        _only(tree, "this", "table")
        name, table = tree.this, tree.args.get("table")
        if type(name) is not exp.Identifier or name.this not in self._names.columns:
            raise UncompilableError("not a column of the table")
        if table is not None and table.this != self._names.table:
            raise UncompilableError("a column of another table")
        return ColumnValue(self._names.columns[name.this], name.this)

    def _function(self, tree: exp.Dot) -> Node:
        _only(tree, "this", "expression")
        schema, call = tree.this, tree.expression
        if type(schema) is not exp.Identifier or type(call) is not exp.Anonymous:
            raise UncompilableError("a name that is not known")
        _only(call, "this")
        name = schema.this, call.this
        if name not in self._names.functions:
            raise UncompilableError(f"function {name} is not ours")
        return FUNCTIONS[name]

    def _setting(self, tree: exp.Anonymous) -> Node:
        """`current_setting('request.jwt.claims'::text, true)`."""
        _only(tree, "this", "expressions")
        if tree.this != "current_setting":
            raise UncompilableError(f"function {tree.this} is not compiled")
        name, missing_ok = (self.read(part) for part in _some(tree.expressions, 2))
        if name != Constant(Kind.TEXT, _CLAIMS_SETTING) or missing_ok != Constant(Kind.BOOL, True):
            raise UncompilableError("a setting that is not known")
        return ClaimsText()

    def _boolean(self, tree: exp.Boolean) -> Node:
        _only(tree, "this")
        return Constant(Kind.BOOL, bool(tree.this))

    def _number(self, tree: exp.Literal) -> Node:
        _only(tree, "this", "is_string")
        if tree.is_string:
            raise UncompilableError("text of unknown type")
        # Without a label Postgres writes integers and those numerics that cannot be mistaken.
        kind = Kind.INT4 if str(tree.this).isdecimal() else Kind.NUMERIC
        return Constant(kind, literal(kind, tree.this))

    def _field(self, tree: exp.JSONExtract | exp.JSONExtractScalar) -> Node:
        _only(tree, "this", "expression", "only_json_types")
        document = self.read(tree.this)
        if document.kind not in (Kind.JSON, Kind.JSONB):
            raise UncompilableError("a field of something else")
        key = self.read(tree.expression)
        if not isinstance(key, Constant) or key.kind is not Kind.TEXT or key.value is None:
            raise UncompilableError("a field without a fixed name")
        kind = Kind.TEXT if type(tree) is exp.JSONExtractScalar else document.kind
        return Field(document, key.value, kind)

    def _has_key(self, tree: exp.JSONBContainsTopKey) -> Node:
        _only(tree, "this", "expression")
        left, right = self.read(tree.this), self.read(tree.expression)
        if left.kind is not Kind.JSONB or right.kind is not Kind.TEXT:
            raise UncompilableError("not a key of a jsonb")
        return HasKey(left, right)


def _only(tree: exp.Expression, *names: str) -> None:
    """Refuse a part that says more than we look at."""
    said = {name for name, value in tree.args.items() if value not in (None, False, [], "")}
    if not said <= {*names}:
        raise UncompilableError(f"{type(tree).__name__} with {sorted(said - {*names})}")


def _some(parts: list[exp.Expression], count: int) -> list[exp.Expression]:
    if len(parts) != count:
        raise UncompilableError(f"{len(parts)} parts instead of {count}")
    return parts


def _kind(type_: object) -> Kind:
    if type(type_) is not exp.DataType or type_.this not in _KINDS:
        raise UncompilableError("a type that is not known")
    _only(type_, "this")
    return _KINDS[type_.this]


def _element_kind(tree: exp.Cast) -> Kind:
    """The elements' kind in a cast to an array."""
    _only(tree, "this", "to")
    array = tree.args["to"]
    if type(array) is not exp.DataType or array.this is not exp.DataType.Type.ARRAY:
        raise UncompilableError("not an array")
    _only(array, "this", "expressions", "nested")
    (element,) = _some(array.expressions, 1)
    return _kind(element)


def _converted(node: Node, kind: Kind) -> Node:
    if node.kind is kind:
        return node
    if not is_castable(node.kind, kind):
        raise UncompilableError(f"{node.kind.name} as {kind.name}")
    return Cast(node, kind)


def _comparison(operator: Operator, left: Node, right: Node) -> Node:
    _check_comparable(operator, left, right)
    return Compare(operator, left, right)


def _check_comparable(operator: Literal["="] | Operator, left: Node, right: Node) -> None:
    in_order = operator not in ("=", "<>")
    if not is_comparable(left.kind, right.kind, in_order=in_order):
        raise UncompilableError(f"{left.kind.name} {operator} {right.kind.name}")
