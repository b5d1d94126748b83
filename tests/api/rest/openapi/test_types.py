from typing import Any

import pytest

from butterbase.api.rest.openapi.types import default_of, query_type, schema_of_type
from butterbase.sql.relations.model import Column


@pytest.mark.parametrize(
    ("type_name", "schema"),
    [
        ("smallint", {"type": "integer", "format": "int32"}),
        ("integer", {"type": "integer", "format": "int32"}),
        ("bigint", {"type": "integer", "format": "int64"}),
        ("real", {"type": "number", "format": "real"}),
        ("double precision", {"type": "number", "format": "double precision"}),
        ("numeric", {"type": "number", "format": "numeric"}),
        ("boolean", {"type": "boolean", "format": "boolean"}),
        ("text", {"type": "string", "format": "text"}),
        ("character varying", {"type": "string", "format": "character varying"}),
        ("api.mood", {"type": "string", "format": "api.mood"}),
        ("jsonb", {"format": "jsonb"}),
        ("bigint[]", {"type": "array", "format": "bigint[]", "items": {"type": "integer"}}),
        ("json[]", {"type": "array", "format": "json[]", "items": {}}),
    ],
)
def test_a_type_in_a_body(type_name: str, schema: dict[str, Any]) -> None:
    assert schema_of_type(type_name) == schema


@pytest.mark.parametrize(
    ("type_name", "schema"),
    [
        ("integer", {"type": "integer", "format": "int32"}),
        ("json", {"type": "string", "format": "json"}),
        ("integer[]", {"type": "string", "format": "integer[]"}),
    ],
)
def test_a_type_in_a_query_string_is_never_any_and_never_an_array(
    type_name: str, schema: dict[str, Any]
) -> None:
    assert query_type(type_name, is_repeated=False) == schema


@pytest.mark.parametrize(
    ("type_name", "items"),
    [
        ("bigint[]", {"type": "integer", "format": "int64"}),
        ("jsonb[]", {"type": "string", "format": "jsonb"}),
    ],
)
def test_a_variadic_parameter_is_repeated(type_name: str, items: dict[str, Any]) -> None:
    schema = {"type": "array", "items": items, "collectionFormat": "multi"}
    assert query_type(type_name, is_repeated=True) == schema


@pytest.mark.parametrize(
    ("type_name", "expression", "value"),
    [
        ("text", "'it''s'::text", "it's"),
        ("text", "''::text", ""),
        ("date", "'1900-01-01'::date", "1900-01-01"),
        ("time without time zone", "'13:00:00'::time without time zone", "13:00:00"),
        ("character", "'x'::bpchar", "x"),
        ("timestamp with time zone", "now()", "now()"),
        ("text", "('a'::text || 'b'::text)", "('a'::text || 'b'::text)"),
        ("text", "NULL::text", None),
        ("text", "NULL", None),
        ("text", None, None),
        ("boolean", "false", False),
        ("integer", "42", 42),
        ("integer", "'-1'::integer", -1),
        ("integer", "nextval('s'::regclass)", None),
        ("integer", "4.2", None),
        ("boolean", "1", None),
        ("numeric", "42.2", 42.2),
        ("numeric", "'NaN'::numeric", None),
        ("jsonb", """'{"a": [1]}'::jsonb""", {"a": [1]}),
        ("jsonb", "jsonb_build_object()", None),
        ("text[]", "'{}'::text[]", None),
    ],
)
def test_a_default_is_the_value_where_it_can_be_told(
    type_name: str, expression: str | None, value: object
) -> None:
    default = default_of(Column("c", type_name, type_name, default=expression))
    assert (type(default), default) == (type(value), value)


def test_a_default_that_its_column_would_refuse_is_left_out() -> None:
    code = Column("c", "character", "character(1)", default="new_code()", max_length=1)
    mood = Column("c", "mood", "mood", default="any_mood()", enum=("sad", "ok"))
    assert default_of(code) is None
    assert default_of(mood) is None
