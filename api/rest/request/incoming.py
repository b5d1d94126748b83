"""An HTTP request → what it asks for: its shape, which plans are kept by, and its values."""

from urllib.parse import unquote

from msgspec import Struct

from butterbase.api.rest.errors import (
    InvalidPathError,
    InvalidRpcMethodError,
    PutRangeError,
    UnacceptableSchemaError,
    UnsupportedMethodError,
)
from butterbase.api.rest.request.headers import Headers
from butterbase.api.rest.request.media import parse_media_type
from butterbase.api.rest.request.model import LITERAL_LIMIT_MAX, Action, Page, Request
from butterbase.api.rest.request.parser import read_query, shape_of
from butterbase.api.rest.request.payload import Payload, read_payload
from butterbase.api.rest.request.ranges import ALL, requested_range
from butterbase.api.rest.request.syntax import Query, Range
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.memo import memoized

_RELATION_ACTIONS: dict[str, Action] = {
    "GET": "read",
    "HEAD": "read",
    "POST": "insert",
    "PUT": "put",
    "PATCH": "update",
    "DELETE": "delete",
}
_CALL_ACTIONS: dict[str, Action] = {"GET": "call_read", "HEAD": "call_read", "POST": "call"}
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_WITH_BODY: frozenset[Action] = frozenset({"insert", "update", "put", "call"})


class HttpRequest(Struct, frozen=True):
    method: str
    path: str
    """Below the API's prefix, percent-encoded, with its leading slash."""
    query_string: str
    headers: list[tuple[bytes, bytes]]
    """Names in lowercase."""
    admission_s: float = 0.0
    """What verifying the caller took, for `Server-Timing`."""


class Target(Struct, frozen=True):
    """What a path names: a relation, a function or, with neither, the API itself."""

    name: str = ""
    is_function: bool = False


class Incoming(Struct, frozen=True):
    http: HttpRequest
    headers: Headers
    request: Request
    query: Query
    range: Range
    profile: str | None
    """The schema, where the answer is to tell it."""
    payload: Payload | None

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """Of a function, from the query string or a form."""
        if self.payload is not None and self.payload.arguments is not None:
            return self.payload.arguments
        return self.query.arguments


@memoized
def target_of(path: str) -> Target:
    """Raises InvalidPathError."""
    try:
        segments = [unquote(s, errors="strict") for s in path.strip("/").split("/")]
    except UnicodeDecodeError as error:
        raise InvalidPathError from error
    match segments:
        case [""]:
            return Target()
        case [name]:
            return Target(name)
        case ["rpc", name]:
            return Target(name, is_function=True)
        case _:
            raise InvalidPathError


def schema_of(method: str, headers: Headers, settings: RestSettings) -> tuple[str, bool]:
    """The schema, and whether its answer says which it is. Raises UnacceptableSchemaError."""
    profile = headers.get("content-profile" if method in _WRITES else "accept-profile")
    if profile is None:
        return settings.schemas[0], len(settings.schemas) > 1
    if profile not in settings.schemas:
        raise UnacceptableSchemaError(
            f"Invalid schema: {profile}",
            hint=f"Only the following schemas are exposed: {', '.join(settings.schemas)}",
        )
    return profile, True


def read_request(
    http: HttpRequest,
    headers: Headers,
    target: Target,
    schema: str,
    body: bytes,
    *,
    tells_schema: bool,
) -> Incoming:
    """Raises RestError."""
    action = _action(http.method, target)
    query = read_query(http.query_string, is_call=action == "call_read")
    wanted = requested_range(query.ranges, headers.get("range") if http.method == "GET" else None)
    if action == "put" and wanted != ALL:
        raise PutRangeError
    payload = media_name = None
    if action in _WITH_BODY:
        media = parse_media_type(headers.get("content-type") or "application/json")
        media_name = media.name
        columns = shape_of(query).columns if action != "put" else None
        payload = read_payload(body, media, columns, is_call=action == "call")
    names = payload.arguments if payload is not None and payload.arguments else query.arguments
    request = Request(
        action,
        schema,
        target.name,
        query.outline,
        value_count=len(query.values),
        pages=(_page(wanted), *(_page(rows) for path, rows in query.ranges if path)),
        is_head=http.method == "HEAD",
        accept=headers.get("accept"),
        prefer=headers.all("prefer"),
        content_type=media_name,
        keys=() if payload is None else payload.keys,
        is_object=payload is None or payload.is_object,
        arguments=tuple(name for name, _ in names or ()),
    )
    profile = schema if tells_schema else None
    return Incoming(http, headers, request, query, wanted, profile, payload)


def _action(method: str, target: Target) -> Action:
    action = (_CALL_ACTIONS if target.is_function else _RELATION_ACTIONS).get(method)
    if action is not None:
        return action
    if target.is_function:
        raise InvalidRpcMethodError(f"Cannot use the {method} method on RPC")
    raise UnsupportedMethodError(f"Unsupported HTTP method: {method}")


_EVERYTHING = Page()


def _page(rows: Range) -> Page:
    if rows == ALL:
        return _EVERYTHING
    limit = rows.limit
    is_literal = limit is not None and limit <= LITERAL_LIMIT_MAX
    return Page(limit if is_literal else None, limit is not None, rows.first > 0)
