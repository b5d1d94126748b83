"""A tool that the app grants and its schema → what the model is offered, and how a call is made.

Pure: names of tables become descriptions and JSON schemas, arguments become requests.
"""

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.tools.config import ToolGrant
from butterbase.ai.tools.errors import ToolArgumentsError, ToolUnavailableError
from butterbase.ai.tools.ports import BackendAnswer, DataRequest, Exposed, Invocation
from butterbase.ai.tools.queries import TableAccess, decode_arguments, plan_call
from butterbase.ai.tools.results import Output, read_any, read_change, read_rows
from butterbase.ai.tools.schemas import (
    column_schema,
    object_schema,
    order_schema,
    parameter_schema,
    where_schema,
)
from butterbase.ai.wire.form import NULL, Tool
from butterbase.sql.relations.model import Column, Routine, Table

_ANYTHING = Raw(b'{"type":"object","properties":{}}')
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class Work(Struct, frozen=True):
    """One call of a tool, as it goes to the app."""

    request: DataRequest | Invocation
    operation: str
    limit: int = 0
    """Of rows, where it reads some."""


class Offer(Protocol):
    """A tool that a request may use."""

    @property
    def grant(self) -> ToolGrant: ...

    @property
    def tool(self) -> Tool:
        """As the model is told of it."""
        ...

    def plan(self, arguments: str) -> Work:
        """Raises ToolArgumentsError."""
        ...

    def read(self, work: Work, answer: BackendAnswer) -> Output:
        """Raises ToolRefusedError."""
        ...


def make_offer(name: str, grant: ToolGrant, exposed: Exposed) -> Offer:
    """Raises ToolUnavailableError: what it is of is not there."""
    if grant.function is not None:
        return FunctionOffer(name, grant)
    schema = grant.schema or exposed.schemas[0]
    if schema not in exposed.schemas:
        raise _unavailable(name, f"REST does not serve the schema {schema!r}")
    if grant.rpc is not None:
        routines = exposed.cache.routines.get((schema, grant.rpc), ())
        return RoutineOffer(name, grant, _the_routine(name, grant.rpc, routines))
    table = exposed.cache.tables.get((schema, str(grant.table)))
    if table is None:
        raise _unavailable(name, f"there is no table {grant.table!r}")
    return TableOffer(name, grant, table)


class TableOffer:
    def __init__(self, name: str, grant: ToolGrant, table: Table) -> None:
        self.grant = grant
        readable = _columns(name, table, grant.columns)
        writable = _columns(name, table, grant.write_columns or grant.columns)
        _check_operations(name, grant, table)
        self._access = TableAccess(
            table.name,
            table.schema,
            grant.allowed,
            tuple(readable),
            tuple(writable),
            grant.row_count_max,
            grant.change_count_max,
        )
        description = grant.description or table.description or f"The table {table.name}."
        schema = Raw(msgspec.json.encode(_table_schema(self._access, readable, writable)))
        self.tool = Tool(name, _with_needs(description, self._access, writable), schema)

    def plan(self, arguments: str) -> Work:
        call = plan_call(self._access, arguments)
        return Work(call.request, call.operation, call.limit)

    def read(self, work: Work, answer: BackendAnswer) -> Output:
        bytes_max = self.grant.bytes_max
        if work.operation == "select":
            return read_rows(answer, limit=work.limit, bytes_max=bytes_max)
        return read_change(answer, bytes_max=bytes_max)


class RoutineOffer:
    def __init__(self, name: str, grant: ToolGrant, routine: Routine) -> None:
        self.grant = grant
        self._routine = routine
        self._names = frozenset(parameter.name for parameter in routine.parameters)
        schema = object_schema(
            {p.name: parameter_schema(p) for p in routine.parameters},
            [p.name for p in routine.parameters if p.is_required],
        )
        description = grant.description or routine.description or f"Calls {routine.name}."
        self.tool = Tool(name, description, Raw(msgspec.json.encode(schema)))

    def plan(self, arguments: str) -> Work:
        given = decode_arguments(_OBJECT, arguments)
        for argument in given:
            if argument not in self._names:
                raise ToolArgumentsError(
                    f"there is no parameter {argument[:80]!r}",
                    hint=f"there are: {', '.join(sorted(self._names))}"[:1000],
                )
        routine, limit = self._routine, self.grant.row_count_max
        request = DataRequest(
            "POST",
            f"/rpc/{quote(routine.name, safe='')}",
            f"limit={limit + 1}" if routine.returns_set else "",
            body=msgspec.json.encode(given),
            schema=routine.schema,
        )
        return Work(request, "call", limit)

    def read(self, work: Work, answer: BackendAnswer) -> Output:
        bytes_max = self.grant.bytes_max
        if self._routine.returns_set:
            return read_rows(answer, limit=work.limit, bytes_max=bytes_max)
        return read_any(answer, bytes_max=bytes_max)


class FunctionOffer:
    def __init__(self, name: str, grant: ToolGrant) -> None:
        self.grant = grant
        schema = _ANYTHING if grant.parameters == NULL else grant.parameters
        self.tool = Tool(name, grant.description, schema)

    def plan(self, arguments: str) -> Work:
        given = decode_arguments(_OBJECT, arguments)
        return Work(Invocation(self.grant.target, msgspec.json.encode(given)), "invoke")

    def read(self, work: Work, answer: BackendAnswer) -> Output:
        return read_any(answer, bytes_max=self.grant.bytes_max)


def _unavailable(name: str, why: str) -> ToolUnavailableError:
    return ToolUnavailableError(
        f"the tool {name!r}: {why}", param="tools", hint="correct tools with PUT ai/config"
    )


def _the_routine(name: str, function: str, routines: tuple[Routine, ...]) -> Routine:
    if not routines:
        raise _unavailable(name, f"there is no database function {function!r}")
    if len(routines) > 1:
        raise _unavailable(name, f"there are several database functions {function!r}")
    if any(not parameter.name for parameter in routines[0].parameters):
        raise _unavailable(name, f"a parameter of {function!r} has no name")
    return routines[0]


def _columns(name: str, table: Table, granted: list[str] | None) -> dict[str, Column]:
    """In the table's order."""
    if granted is None:
        return dict(table.columns)
    if missing := [column for column in granted if column not in table.columns]:
        raise _unavailable(name, f"{table.name} has no column {missing[0]!r}")
    return {column: table.columns[column] for column in table.columns if column in granted}


def _check_operations(name: str, grant: ToolGrant, table: Table) -> None:
    can = {
        "select": True,
        "insert": table.is_insertable,
        "update": table.is_updatable,
        "delete": table.is_deletable,
    }
    for operation in grant.allowed:
        if not can[operation]:
            raise _unavailable(name, f"{table.name} takes no {operation}")


def _table_schema(
    access: TableAccess, readable: Mapping[str, Column], writable: Mapping[str, Column]
) -> dict[str, Any]:
    operations = access.operations
    properties: dict[str, Any] = {}
    required = []
    if len(operations) > 1:
        properties["operation"] = {"type": "string", "enum": list(operations)}
        required.append("operation")
    if operations != ("insert",):
        properties["where"] = where_schema(readable)
    if "select" in operations:
        names = {"type": "string", "enum": list(readable)}
        properties["columns"] = {"type": "array", "items": names, "description": "default all"}
        properties["order"] = order_schema(readable)
        limit = {"type": "integer", "minimum": 1, "maximum": access.row_count_max}
        properties["limit"] = limit
        properties["offset"] = {"type": "integer", "minimum": 0}
    if {"insert", "update"} & set(operations):
        schemas = {column: column_schema(found) for column, found in writable.items()}
        properties["values"] = object_schema(schemas)
    if len(operations) == 1:
        only = {"insert": ["values"], "update": ["where", "values"], "delete": ["where"]}
        required = only.get(operations[0], [])
    return object_schema(properties, required)


def _with_needs(description: str, access: TableAccess, writable: Mapping[str, Column]) -> str:
    """With what the JSON schema cannot say."""
    told = [description]
    if "insert" in access.operations:
        needed = [n for n, c in writable.items() if not c.is_nullable and c.default is None]
        if needed:
            told.append(f"insert needs {', '.join(needed)}.")
    if {"update", "delete"} & set(access.operations):
        told.append(f"One call changes at most {access.change_count_max} rows, chosen by where.")
    return " ".join(told)
