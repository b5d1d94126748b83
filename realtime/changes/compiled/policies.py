"""What a role's access to a table comes to: who may see a row, and whether Postgres must be asked.

A policy is compiled only while it names nothing but the table's columns, what is Postgres's own,
and functions of ours whose definitions are those we installed: by oid, as Postgres recorded what
the policy depends on, whatever the names look like.
"""

import enum
import logging
from functools import lru_cache
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from butterbase.realtime.changes.access import Access, AccessColumn, Function, Policy
from butterbase.realtime.changes.compiled.errors import UncompilableError
from butterbase.realtime.changes.compiled.kinds import KIND_OF_OID, TEXTS, Kind
from butterbase.realtime.changes.compiled.nodes import Node, columns_of
from butterbase.realtime.changes.compiled.parsing import Names, parse
from butterbase.realtime.changes.compiled.predicate import Predicate, predicate

logger = logging.getLogger(__name__)

# Base types, ranges, multiranges; a domain may be of a composite type.
_KIND_OF_TYPTYPE: Final = {"b": Kind.OTHER, "e": Kind.ENUM, "r": Kind.OTHER, "m": Kind.OTHER}

_CLAIMS: Final = "nullif(current_setting('request.jwt.claims', true), '')::jsonb"


def _installed(name: str, result: str, source: str) -> Function:
    return Function(
        schema="auth",
        name=name,
        source=source,
        language="sql",
        result=result,
        argument_count=0,
        volatility="s",
        is_security_definer=False,
        has_settings=False,
        is_callable=True,
    )


INSTALLED: Final = frozenset(
    {
        _installed("jwt", "jsonb", f"select {_CLAIMS}"),
        _installed("uid", "uuid", f"select ({_CLAIMS} ->> 'sub')::uuid"),
        _installed("role", "text", f"select {_CLAIMS} ->> 'role'"),
        _installed("email", "text", f"select {_CLAIMS} ->> 'email'"),
    }
)
"""As sql/migrations/app/0002_auth.sql makes them; the source without blanks around it."""


class Visibility(enum.Enum):
    """Which rows of a table a role may see."""

    NONE = enum.auto()
    ALL = enum.auto()
    COMPILED = enum.auto()
    """Those for which the predicate is true."""
    ASKED = enum.auto()
    """Those that Postgres names."""


class Gate(Struct, frozen=True):
    visibility: Visibility
    predicate: Predicate | None = None


@lru_cache(maxsize=1024)
def gate_of(access: Access) -> Gate:
    if not access.readable:
        return Gate(Visibility.NONE)
    if not access.is_row_security_active:
        return Gate(Visibility.ALL)
    if not any(policy.is_permissive for policy in access.policies):
        return Gate(Visibility.NONE)
    try:
        return Gate(Visibility.COMPILED, compiled(access))
    except UncompilableError as error:
        logger.debug("%s.%s: Postgres is asked: %s", access.schema, access.table, error)
        return Gate(Visibility.ASKED)


def compiled(access: Access) -> Predicate:
    """Raises UncompilableError."""
    columns = {column.name: kind for column in access.columns if (kind := kind_of(column))}
    nodes = [(policy, _parsed(policy, access.table, columns)) for policy in access.policies]
    return predicate(
        [node for policy, node in nodes if policy.is_permissive],
        [node for policy, node in nodes if not policy.is_permissive],
    )


def _parsed(policy: Policy, table: str, columns: dict[str, Kind]) -> Node:
    if not policy.is_self_contained:
        raise UncompilableError("it names more than the table and functions")
    strange = [f.name for f in policy.functions if _stripped(f) not in INSTALLED]
    if strange:
        raise UncompilableError(f"functions {strange} are not those we installed")
    known = frozenset((function.schema, function.name) for function in policy.functions)
    node = parse(policy.expression, Names(table, columns, known))
    # Postgres's own account of what it reads: we cannot have read anything else out of the text.
    if columns_of(node) != frozenset(policy.columns):
        raise UncompilableError("it names other columns")
    return node


def _stripped(function: Function) -> Function:
    return replace(function, source=function.source.strip())


def kind_of(column: AccessColumn) -> Kind | None:
    """None for a type whose NULL is a matter of its fields."""
    kind = KIND_OF_OID.get(column.type_oid)
    if kind in TEXTS and not column.is_deterministic:
        return Kind.OTHER
    if kind is None:
        return _KIND_OF_TYPTYPE.get(column.type_kind)
    return kind
