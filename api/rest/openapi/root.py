"""A request to the root of the API: what its caller may see there, and the answer.

https://docs.postgrest.org/en/stable/references/configuration.html#openapi-mode
"""

from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from butterbase.api.rest.errors import MediaTypeError, UnsupportedMethodError
from butterbase.api.rest.openapi.document import describe
from butterbase.api.rest.plan.headers import VARY
from butterbase.api.rest.request.media import ANY, JSON, MediaType, content_type, mime, parse_accept
from butterbase.api.rest.response import Answer
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Result, Statement
from butterbase.sql.relations.model import SchemaCache

OPENAPI = MediaType("application/openapi+json")

_METHODS = ("GET", "HEAD")
_ACCEPTED = frozenset({OPENAPI.name, JSON, ANY})
_QUERIES = load_queries("rest")
_NAMES = msgspec.json.Decoder(list[str])
_VERSION = version("butterbase")
_ROUTINES = msgspec.json.Decoder(list[tuple[int, tuple[str, ...]]])


def refuse(method: str, accept: str | None) -> None:
    """Raises UnsupportedMethodError and MediaTypeError."""
    if method not in _METHODS:
        raise UnsupportedMethodError(f"Unsupported HTTP method: {method}")
    accepted = parse_accept(accept)
    if not any(media.name in _ACCEPTED for media in accepted):
        wanted = ", ".join(mime(media) for media in accepted)
        raise MediaTypeError(f"None of these media types are available: {wanted}")


def statements(schema: str, settings: RestSettings) -> list[Statement]:
    """To be run as the caller; `answer` takes their results."""
    names = ["schema_comment"]
    if settings.openapi_mode == "follow-privileges":
        names += ["accessible_tables", "accessible_routines"]
    return [Statement(_QUERIES[name], (schema.encode(),)) for name in names]


def answer(
    cache: SchemaCache,
    schema: str,
    settings: RestSettings,
    results: Sequence[Result],
    *,
    profile: str | None,
    is_head: bool,
) -> Answer:
    """`profile`: the schema, where it is one of several."""
    headers = [(b"content-type", content_type(OPENAPI).encode()), VARY]
    if profile is not None:
        headers.append((b"content-profile", profile.encode()))
    if is_head:
        return Answer(200, headers, b"")
    comment, *accessible = results
    tables = routines = None
    if accessible:
        names, oids = (result.value() or b"[]" for result in accessible)
        tables = frozenset((schema, name) for name in _NAMES.decode(names))
        routines = dict(_ROUTINES.decode(oids))
    text = comment.value() if comment.row_count else None
    body = describe(
        cache,
        schema,
        settings,
        tables=tables,
        routines=routines,
        description=None if text is None else text.decode(),
        version=_VERSION,
    )
    return Answer(200, headers, body)
