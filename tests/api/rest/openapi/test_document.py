from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV2SpecValidator

from butterbase.api.rest.openapi.document import DESCRIPTION, TITLE, describe
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.relations.model import (
    Cardinality,
    Column,
    Name,
    Parameter,
    Relationship,
    Routine,
    SchemaCache,
    Table,
    Volatility,
)


def column(name: str, type_name: str = "text", **known: Any) -> Column:
    return Column(name, type_name, type_name, **known)


def table(name: str, *columns: Column, schema: str = "api", **known: Any) -> Table:
    return Table(schema, name, {c.name: c for c in columns}, **known)


def parameter(name: str, type_name: str = "text", **known: Any) -> Parameter:
    return Parameter(name, type_name, type_name, **known)


def routine(name: str, *parameters: Parameter, schema: str = "api", **known: Any) -> Routine:
    returns = known.pop("returns", ("pg_catalog", "text"))
    return Routine(schema, name, parameters, returns, **known)


def cache_of(*members: Table | Routine, **known: Any) -> SchemaCache:
    routines: dict[Name, tuple[Routine, ...]] = {}
    for member in members:
        if isinstance(member, Routine):
            name = (member.schema, member.name)
            routines[name] = (*routines.get(name, ()), member)
    tables = {(m.schema, m.name): m for m in members if isinstance(m, Table)}
    return SchemaCache(tables, routines=routines, **known)


def document(
    cache: SchemaCache,
    *,
    tables: set[Name] | None = None,
    routines: Mapping[int, Sequence[str]] | None = None,
    comment: str | None = None,
    **settings: Any,
) -> Any:
    """Of the schema `api`; what is not valid fails."""
    text = describe(
        cache,
        "api",
        RestSettings(**settings),
        tables=tables,
        routines=routines,
        description=comment,
        version="1.2",
    )
    found = msgspec.json.decode(text)
    assert [str(error) for error in OpenAPIV2SpecValidator(found).iter_errors()] == []
    return found


def test_an_empty_schema_has_the_root_alone() -> None:
    found = document(SchemaCache())
    assert found["swagger"] == "2.0"
    assert found["info"] == {"title": TITLE, "description": DESCRIPTION, "version": "1.2"}
    assert list(found["paths"]) == ["/"]
    assert found["definitions"] == {}


def test_the_title_is_the_first_line_of_the_schemas_comment() -> None:
    info = document(SchemaCache(), comment="Films\n\nAll of them,\nand more")["info"]
    assert (info["title"], info["description"]) == ("Films", "All of them,\nand more")
    assert document(SchemaCache(), comment="Films")["info"]["description"] == DESCRIPTION


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (None, {"basePath": "/"}),
        ("https://api.io/v1", {"schemes": ["https"], "host": "api.io:443", "basePath": "/v1"}),
        ("http://api.io", {"schemes": ["http"], "host": "api.io:80", "basePath": "/"}),
        ("HTTP://Api.io:81/", {"schemes": ["http"], "host": "api.io:81", "basePath": "/"}),
        ("http://[::1]:81/v1", {"basePath": "/v1"}),
    ],
)
def test_the_address_is_that_of_the_proxy(url: str | None, address: dict[str, Any]) -> None:
    found = document(SchemaCache(), openapi_server_proxy_uri=url, public_url=None)
    assert {key: found[key] for key in ("schemes", "host", "basePath") if key in found} == address


def test_the_public_address_serves_where_no_proxy_is_named() -> None:
    found = document(SchemaCache(), public_url="https://films.io/rest/v1")
    assert found["basePath"] == "/rest/v1"


def test_security_is_described_when_asked_for() -> None:
    assert "security" not in document(SchemaCache())
    found = document(SchemaCache(), openapi_security_active=True)
    assert found["security"] == [{"JWT": []}]
    assert found["securityDefinitions"]["JWT"]["name"] == "Authorization"


def test_a_table_is_read_and_changed_on_its_path() -> None:
    films = table("films", column("id"), column("name"), description="Films\n\nSeen\nor not")
    path = document(cache_of(films))["paths"]["/films"]
    assert list(path) == ["get", "post", "patch", "delete"]
    for operation in path.values():
        assert operation["tags"] == ["films"]
        assert (operation["summary"], operation["description"]) == ("Films", "Seen\nor not")
    assert [each["$ref"].removeprefix("#/parameters/") for each in path["get"]["parameters"]] == [
        "rowFilter.films.id",
        "rowFilter.films.name",
        "select",
        "order",
        "range",
        "rangeUnit",
        "offset",
        "limit",
        "preferCount",
    ]
    rows = {"type": "array", "items": {"$ref": "#/definitions/films"}}
    assert path["get"]["responses"]["200"]["schema"] == rows
    assert path["patch"]["responses"]["204"] == {"description": "No Content"}


def test_a_view_that_cannot_be_changed_is_only_read() -> None:
    view = table("v", is_insertable=False, is_updatable=False, is_deletable=False)
    assert list(document(cache_of(view))["paths"]["/v"]) == ["get"]


def test_a_table_is_defined_by_its_columns() -> None:
    films = table(
        "films",
        column("id", "integer", is_nullable=False, description="Its number"),
        column("mood", "api.mood", enum=("sad", "ok"), default="'ok'::api.mood"),
        column("code", "character", max_length=3),
        primary_key=("id",),
        description="Films",
    )
    assert document(cache_of(films))["definitions"]["films"] == {
        "type": "object",
        "description": "Films",
        "required": ["id"],
        "properties": {
            "id": {
                "type": "integer",
                "format": "int32",
                "description": "Its number\n\nNote:\nThis is a Primary Key.<pk/>",
            },
            "mood": {
                "type": "string",
                "format": "api.mood",
                "enum": ["sad", "ok"],
                "default": "ok",
            },
            "code": {"type": "string", "format": "character", "maxLength": 3},
        },
    }


def test_a_column_tells_the_table_that_it_refers_to() -> None:
    def refers(other: str, own: str, cardinality: Cardinality, **known: Any) -> Relationship:
        columns = ((own, "id"),)
        return Relationship(("api", "roles"), ("api", other), cardinality, columns=columns, **known)

    related = (
        refers("films_view", "film_id", Cardinality.MANY_TO_ONE, other_is_view=True),
        refers("films", "film_id", Cardinality.MANY_TO_ONE),
        refers("faces", "face_id", Cardinality.ONE_TO_ONE),
        refers("credits", "id", Cardinality.ONE_TO_ONE, is_parent=True),
        refers("scenes", "id", Cardinality.ONE_TO_MANY),
        Relationship(
            ("api", "roles"),
            ("api", "sets"),
            Cardinality.MANY_TO_ONE,
            columns=(("set_a", "a"), ("set_b", "b")),
        ),
    )
    names = ("id", "film_id", "face_id", "set_a")
    roles = table("roles", *(column(name) for name in names))
    cache = cache_of(roles, relationships={(("api", "roles"), "api"): related})
    properties = document(cache)["definitions"]["roles"]["properties"]
    note = "Note:\nThis is a Foreign Key to `{0}.id`.<fk table='{0}' column='id'/>"
    assert {name: of.get("description") for name, of in properties.items()} == {
        "id": None,
        "film_id": note.format("films"),
        "face_id": note.format("faces"),
        "set_a": None,
    }


def test_columns_named_as_parameters_are_not_filtered_by() -> None:
    odd = table("t", column("order"), column("limit"), column("a"))
    filters = [name for name in document(cache_of(odd))["parameters"] if name.startswith("row")]
    assert filters == ["rowFilter.t.a"]


def test_a_function_is_posted_and_unless_volatile_got() -> None:
    cache = cache_of(
        routine("sure", volatility=Volatility.IMMUTABLE),
        routine("steady", volatility=Volatility.STABLE),
        routine("wild"),
    )
    paths = document(cache)["paths"]
    assert set(paths["/rpc/sure"]) == set(paths["/rpc/steady"]) == {"get", "post"}
    assert set(paths["/rpc/wild"]) == {"post"}


def test_parameters_stand_in_the_query_string_and_in_the_body() -> None:
    add = routine(
        "add",
        parameter("a", "integer"),
        parameter("b", "integer[]", is_required=False, is_variadic=True),
        volatility=Volatility.IMMUTABLE,
        description="Adds",
    )
    path = document(cache_of(add))["paths"]["/rpc/add"]
    a, b = path["get"]["parameters"]
    assert a == {
        "name": "a",
        "in": "query",
        "required": True,
        "type": "integer",
        "format": "int32",
    }
    assert (b["required"], b["collectionFormat"]) == (False, "multi")
    body, prefer = path["post"]["parameters"]
    assert prefer == {"$ref": "#/parameters/preferParams"}
    assert (body["name"], body["in"], body["required"]) == ("args", "body", True)
    assert body["schema"]["required"] == ["a"]
    assert list(body["schema"]["properties"]) == ["a", "b"]
    assert body["schema"]["description"] == path["get"]["summary"] == "Adds"


@pytest.mark.parametrize(
    ("type_name", "media_type"),
    [("jsonb", "application/json"), ("text", "text/plain"), ("bytea", "application/octet-stream")],
)
def test_a_parameter_without_a_name_is_the_body(type_name: str, media_type: str) -> None:
    whole = routine("whole", parameter("", type_name), volatility=Volatility.IMMUTABLE)
    path = document(cache_of(whole))["paths"]["/rpc/whole"]
    assert list(path) == ["post"]
    assert path["post"]["consumes"] == [media_type]
    assert path["post"]["parameters"][0]["schema"]["format"] == type_name


def test_what_answers_nothing_says_so() -> None:
    found = document(cache_of(routine("mute", returns=("pg_catalog", "void"))))
    assert "204" in found["paths"]["/rpc/mute"]["post"]["responses"]


def test_of_overloads_the_one_with_the_most_parameters_stands() -> None:
    cache = cache_of(routine("f", oid=1), routine("f", parameter("a"), oid=2))

    def arguments(found: Any) -> list[str]:
        body = found["paths"]["/rpc/f"]["post"]["parameters"][0]
        return list(body["schema"]["properties"])

    assert arguments(document(cache)) == ["a"]
    assert arguments(document(cache, routines={1: ()})) == []


def test_only_the_schema_is_described_and_of_it_what_is_accessible() -> None:
    cache = cache_of(
        table("a"),
        table("b"),
        table("c", schema="other"),
        routine("f", parameter("p", "api.mood"), oid=1),
        routine("g", oid=2),
        routine("h", schema="other", oid=3),
    )
    assert list(document(cache)["paths"]) == ["/", "/a", "/b", "/rpc/f", "/rpc/g"]
    found = document(cache, tables={("api", "b"), ("other", "c")}, routines={1: ("mood",), 3: ()})
    assert list(found["paths"]) == ["/", "/b", "/rpc/f"]
    assert list(found["definitions"]) == ["b"]
    body = found["paths"]["/rpc/f"]["post"]["parameters"][0]
    assert body["schema"]["properties"]["p"]["format"] == "mood"


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(table_name=NAMES, column_name=NAMES, routine_name=NAMES, parameter_name=NAMES)
def test_whatever_the_names_the_document_is_valid(
    table_name: str, column_name: str, routine_name: str, parameter_name: str
) -> None:
    document(
        cache_of(
            table(table_name, column(column_name)),
            routine(routine_name, parameter(parameter_name), volatility=Volatility.STABLE),
        )
    )
