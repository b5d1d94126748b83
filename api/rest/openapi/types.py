"""Postgres's types and default expressions → those of an OpenAPI 2.0 schema. Pure.

https://swagger.io/specification/v2/#data-types
"""

import re
from typing import Any

import msgspec

from butterbase.api.rest.openapi.members import Json
from butterbase.sql.relations.model import Column

_TYPES: dict[str, str | None] = {
    "boolean": "boolean",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "numeric": "number",
    "real": "number",
    "double precision": "number",
    # Any JSON value.
    "json": None,
    "jsonb": None,
}

_FORMATS = {"smallint": "int32", "integer": "int32", "bigint": "int64"}
_ARRAY = "[]"
_LITERAL = re.compile(r"'((?:[^']|'')*)'::[^']+")
_NULL = re.compile(r"NULL(::.+)?", re.DOTALL)


def json_type(type_name: str) -> str | None:
    """None for any."""
    if type_name.endswith(_ARRAY):
        return "array"
    return _TYPES.get(type_name, "string")


def schema_of_type(type_name: str) -> Json:
    """As it stands in a JSON body."""
    schema: Json = {"format": _FORMATS.get(type_name, type_name)}
    found = json_type(type_name)
    if found is not None:
        schema["type"] = found
    if found == "array":
        of = json_type(type_name.removesuffix(_ARRAY))
        schema["items"] = {} if of is None else {"type": of}
    return schema


def query_type(type_name: str, *, is_repeated: bool) -> Json:
    """As it stands in a query string. A parameter there has a type, and an array is its literal;
    unless it is repeated, once for each element."""
    if is_repeated:
        of = query_type(type_name.removesuffix(_ARRAY), is_repeated=False)
        return {"type": "array", "items": of, "collectionFormat": "multi"}
    found = json_type(type_name)
    return {
        "type": "string" if found in (None, "array") else found,
        "format": _FORMATS.get(type_name, type_name),
    }


def default_of(column: Column) -> Any:
    """The value; of text that is computed the expression. None without one that can be told."""
    expression = column.default
    if expression is None or _NULL.fullmatch(expression):
        return None
    literal = _LITERAL.fullmatch(expression)
    text = literal[1].replace("''", "'") if literal else expression
    match json_type(column.type):
        case "string":
            return text if _fits(text, column) else None
        case "integer":
            return _decoded(text, int)
        case "number":
            return _decoded(text, int | float)
        case "boolean":
            return _decoded(text, bool)
        case None:
            return _decoded(text, object)
        case _:
            return None


def _fits(text: str, column: Column) -> bool:
    """A default that its own schema refuses would make the document invalid."""
    if column.max_length is not None and len(text) > column.max_length:
        return False
    return not column.enum or text in column.enum


def _decoded(text: str, of: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=of)
    except msgspec.DecodeError:
        return None
