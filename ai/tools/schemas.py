"""Tables and functions of the database → JSON schemas of a tool's arguments; pure.

They stay with what every provider's models take: no references, no unions.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from butterbase.sql.relations.model import Column, Parameter

_INTEGERS: Final = frozenset({"smallint", "integer", "bigint", "int2", "int4", "int8", "oid"})
_NUMBERS: Final = frozenset({"numeric", "real", "double precision", "float4", "float8", "decimal"})
_OBJECTS: Final = frozenset({"json", "jsonb", "hstore"})

OPERATORS: Final[Mapping[str, str]] = {
    "eq": "eq",
    "neq": "neq",
    "gt": "gt",
    "gte": "gte",
    "lt": "lt",
    "lte": "lte",
    "like": "like",
    "ilike": "ilike",
    "in": "in",
    "is_null": "is.null",
    "is_not_null": "not.is.null",
    "search": "wfts",
}
"""The model's word, and PostgREST's."""


def column_schema(column: Column) -> dict[str, Any]:
    schema = _type_schema(column.type, column.enum)
    schema["description"] = ": ".join(filter(None, (column.type, column.description)))
    if column.max_length is not None and schema.get("type") == "string":
        schema["maxLength"] = column.max_length
    return schema


def parameter_schema(parameter: Parameter) -> dict[str, Any]:
    schema = _type_schema(parameter.type)
    if parameter.is_variadic and schema.get("type") != "array":
        schema = {"type": "array", "items": schema}
    return {**schema, "description": parameter.type}


def _type_schema(type_: str, enum: Iterable[str] = ()) -> dict[str, Any]:
    if type_.endswith("[]"):
        return {"type": "array", "items": _type_schema(type_[:-2])}
    name = type_.partition("(")[0]
    if enum:
        return {"type": "string", "enum": list(enum)}
    if name in _INTEGERS:
        return {"type": "integer"}
    if name in _NUMBERS:
        return {"type": "number"}
    if name in {"boolean", "bool"}:
        return {"type": "boolean"}
    return {"type": "object"} if name in _OBJECTS else {"type": "string"}


def object_schema(properties: Mapping[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def where_schema(columns: Iterable[str]) -> dict[str, Any]:
    condition = object_schema(
        {
            "column": {"type": "string", "enum": list(columns)},
            "operator": {
                "type": "string",
                "enum": list(OPERATORS),
                "description": "like and ilike take % for any text; search is full text",
            },
            "value": {"type": "string", "description": "of all operators but in and is_…null"},
            "values": {"type": "array", "items": {"type": "string"}, "description": "of in"},
        },
        ("column", "operator"),
    )
    return {"type": "array", "items": condition, "description": "conditions that must all hold"}


def order_schema(columns: Iterable[str]) -> dict[str, Any]:
    term = object_schema(
        {
            "column": {"type": "string", "enum": list(columns)},
            "direction": {"type": "string", "enum": ["asc", "desc"]},
        },
        ("column",),
    )
    return {"type": "array", "items": term}
