"""Short ways to write the shapes of requests."""

from urllib.parse import quote

from butterbase.api.rest.request.parser import read_query, shape_of
from butterbase.api.rest.request.syntax import (
    Field,
    JsonStep,
    SelectField,
    Shape,
)


def parsed(query_string: str) -> Shape:
    return shape_of(read_query(query_string))


def field(name: str, *path: JsonStep) -> SelectField:
    return SelectField(Field(name, path))


def encoded(**parameters: str) -> str:
    return "&".join(f"{name}={quote(text)}" for name, text in parameters.items())
