"""What a schema exposes → the OpenAPI 2.0 document of its API. Pure.

https://docs.postgrest.org/en/stable/references/api/openapi.html
https://swagger.io/specification/v2/
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from butterbase.api.rest.openapi.definitions import define
from butterbase.api.rest.openapi.members import ANSWERS, CONSUMED, Json, path_of, split
from butterbase.api.rest.openapi.parameters import parameters_of
from butterbase.api.rest.openapi.paths import root_path, routine_path, table_path
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.relations.model import Name, Routine, SchemaCache

TITLE = "Butterbase REST API"
DESCRIPTION = "Tables, views and functions of a Postgres schema."
DOCS = {
    "description": "PostgREST Documentation",
    "url": "https://postgrest.org/en/latest/references/api.html",
}

_SECURITY = "JWT"
_PORTS = {"http": 80, "https": 443}


def describe(
    cache: SchemaCache,
    schema: str,
    settings: RestSettings,
    *,
    tables: Collection[Name] | None,
    routines: Mapping[int, Sequence[str]] | None,
    description: str | None,
    version: str,
) -> bytes:
    """`tables`, `routines`: those to show, None for all; routines by oid, each with the types of
    its parameters as they are to be written. `description`: the schema's comment."""
    shown = [
        cache.tables[name]
        for name in sorted(cache.tables)
        if name[0] == schema and (tables is None or name in tables)
    ]
    title, text = split(description)
    paths = {"/": root_path()}
    paths |= {path_of(table.name): table_path(table) for table in shown}
    paths |= {
        "/rpc" + path_of(routine.name): routine_path(routine)
        for routine in _shown(cache, schema, routines)
    }
    document: Json = {
        "swagger": "2.0",
        "info": {"title": title or TITLE, "description": text or DESCRIPTION, "version": version},
        **_address(settings.openapi_server_proxy_uri or settings.public_url),
        "consumes": CONSUMED,
        "produces": [*ANSWERS, "text/csv"],
        "paths": paths,
        "definitions": {table.name: define(cache, table) for table in shown},
        "parameters": parameters_of(shown),
        "responses": {"error": _error()},
        "externalDocs": DOCS,
    }
    if settings.openapi_security_active:
        document |= _security()
    return msgspec.json.encode(document)


def _shown(
    cache: SchemaCache, schema: str, shown: Mapping[int, Sequence[str]] | None
) -> Iterator[Routine]:
    """One of each name: OpenAPI has no overloads, so the one with the most parameters stands."""
    for name in sorted(cache.routines):
        overloads = cache.routines[name]
        if shown is not None:
            overloads = tuple(routine for routine in overloads if routine.oid in shown)
        if name[0] == schema and overloads:
            routine = overloads[-1]
            yield routine if shown is None else _with_types(routine, shown[routine.oid])


def _with_types(routine: Routine, types: Sequence[str]) -> Routine:
    assert len(types) == len(routine.parameters), "a function's parameters never change"
    parameters = zip(routine.parameters, types, strict=True)
    return structs.replace(
        routine, parameters=tuple(structs.replace(p, type=type_) for p, type_ in parameters)
    )


def _address(url: str | None) -> Json:
    """Without a URL, clients take that of the document."""
    if url is None:
        return {"basePath": "/"}
    parts = urlsplit(url)
    path = parts.path or "/"
    host = parts.hostname or ""
    if ":" in host:  # OpenAPI 2.0 has no way to write an IPv6 address
        return {"basePath": path}
    scheme = parts.scheme.lower()
    host = f"{host}:{parts.port or _PORTS[scheme]}"
    return {"schemes": [scheme], "host": host, "basePath": path}


def _error() -> Json:
    text = {"type": "string"}
    members = {"code": text, "message": text, "details": {}, "hint": {}}
    return {
        "description": "Error",
        "schema": {"type": "object", "properties": members, "required": ["code", "message"]},
    }


def _security() -> Json:
    scheme = {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": 'Add the token prepending "Bearer " (without quotes) to it',
    }
    return {"securityDefinitions": {_SECURITY: scheme}, "security": [{_SECURITY: []}]}
