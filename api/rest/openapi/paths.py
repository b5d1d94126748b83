"""A table or a function → its path: what may be asked of it, and what it answers."""

from collections.abc import Mapping

from butterbase.api.rest.openapi.members import ANSWERS, JSON, Json, given, ref, summed_up
from butterbase.api.rest.openapi.parameters import filtered
from butterbase.api.rest.openapi.types import query_type, schema_of_type
from butterbase.sql.relations.model import Parameter, Routine, Table, Volatility

_PAGING = ("select", "order", "range", "rangeUnit", "offset", "limit", "preferCount")
_BODIES = {"text": "text/plain", "xml": "text/xml", "bytea": "application/octet-stream"}
"""What a function takes whose one parameter has no name and this type; JSON, if not listed."""


def root_path() -> Json:
    return {
        "get": {
            "tags": ["Introspection"],
            "summary": "OpenAPI description (this document)",
            "produces": ["application/openapi+json", JSON],
            "responses": _responses({"200": "OK"}),
        }
    }


def table_path(table: Table) -> Json:
    rows = {"type": "array", "items": ref("definitions", table.name)}
    answered = {"description": "OK", "schema": rows}
    filters = [ref("parameters", "rowFilter", table.name, name) for name in filtered(table)]
    body = ref("parameters", "body", table.name)

    def operation(parameters: list[Json], responses: Mapping[str, str | Json]) -> Json:
        return {
            "tags": [table.name],
            **summed_up(table.description),
            "parameters": parameters,
            "responses": _responses(responses),
        }

    changed: dict[str, str | Json] = {"200": answered, "204": "No Content"}
    returning = ref("parameters", "preferReturn")
    reading = [*filters, *(ref("parameters", name) for name in _PAGING)]
    path = {"get": operation(reading, {"200": answered, "206": "Partial Content"})}
    if table.is_insertable or table.is_updatable or table.is_deletable:
        inserting = [body, ref("parameters", "select"), ref("parameters", "preferPost")]
        path["post"] = operation(inserting, {"200": "OK", "201": "Created"})
        path["patch"] = operation([*filters, body, returning], changed)
        path["delete"] = operation([*filters, returning], changed)
    return path


def routine_path(routine: Routine) -> Json:
    answered = {"204": "No Content"} if routine.returns_void else {"200": "OK"}
    common = {
        "tags": [f"(rpc) {routine.name}"],
        **summed_up(routine.description),
        "produces": ANSWERS,
        "responses": _responses(answered),
    }
    path = {"post": {**common, **_posted(routine)}}
    if routine.volatility is not Volatility.VOLATILE and not _takes_body(routine):
        path["get"] = {**common, "parameters": [_in_query(p) for p in routine.parameters]}
    return path


def _responses(by_status: Mapping[str, str | Json]) -> Json:
    """A text is a description alone. Any operation may be refused."""
    described = {
        status: {"description": answer} if isinstance(answer, str) else answer
        for status, answer in by_status.items()
    }
    return {**described, "default": ref("responses", "error")}


def _takes_body(routine: Routine) -> bool:
    """Whether its one parameter has no name: then it is the request's whole body."""
    return any(not parameter.name for parameter in routine.parameters)


def _posted(routine: Routine) -> Json:
    consumed = {}
    if _takes_body(routine):
        type_name = routine.parameters[0].type
        schema = schema_of_type(type_name)
        consumed["consumes"] = [_BODIES.get(type_name, JSON)]
    else:
        schema = _arguments(routine)
    body = {"name": "args", "in": "body", "required": True, "schema": schema}
    return {**consumed, "parameters": [body, ref("parameters", "preferParams")]}


def _arguments(routine: Routine) -> Json:
    required = [parameter.name for parameter in routine.parameters if parameter.is_required]
    return given(
        type="object",
        description=routine.description,
        properties={p.name: schema_of_type(p.type) for p in routine.parameters},
        required=required or None,
    )


def _in_query(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        **query_type(parameter.type, is_repeated=parameter.is_variadic),
    }
