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
from butterbase.api.rest.plan.model import Action, Plan, Request
from butterbase.api.rest.request.headers import Headers
from butterbase.api.rest.request.media import parse_media_type
from butterbase.api.rest.request.parser import read_query, shape_of
from butterbase.api.rest.request.payload import Payload, read_payload
from butterbase.api.rest.request.ranges import ALL, requested_range
from butterbase.api.rest.request.syntax import Query, Range
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.filters import array_literal

_RELATION_ACTIONS = {
    "GET": Action.READ,
    "HEAD": Action.READ,
    "POST": Action.INSERT,
    "PUT": Action.PUT,
    "PATCH": Action.UPDATE,
    "DELETE": Action.DELETE,
}
_CALL_ACTIONS = {"GET": Action.CALL_READ, "HEAD": Action.CALL_READ, "POST": Action.CALL}
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_WITH_BODY = frozenset({Action.INSERT, Action.UPDATE, Action.PUT, Action.CALL})


class HttpRequest(Struct, frozen=True):
    method: str
    path: str
    """Below the API's prefix, percent-encoded, with its leading slash."""
    query_string: str
    headers: list[tuple[bytes, bytes]]
    """Names in lowercase."""


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
    payload: Payload | None

    def row(self, plan: Plan) -> list[bytes | None]:
        """The values, in the order of `Parameters`."""
        row: list[bytes | None] = [value.encode() for value in self.query.values]
        row += _page(self.range, plan.row_count_max)
        for path, page in self.query.ranges:
            if path:
                row += _page(page, plan.row_count_max)
        row.append(None if self.payload is None else self._body(self.payload))
        if plan.arguments:
            given = self.arguments
            for argument in plan.arguments:
                texts = [given[place][1] for place in argument.places]
                row.append((array_literal(texts) if argument.is_list else texts[0]).encode())
        return row

    def _body(self, payload: Payload) -> bytes:
        if self.request.content_type == "application/octet-stream":
            return b"\\x" + payload.parameter.hex().encode()  # bytea, in its text format
        return payload.parameter

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """Of a function, from the query string or a form."""
        if self.payload is not None and self.payload.arguments is not None:
            return self.payload.arguments
        return self.query.arguments


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


def schema_of(method: str, headers: Headers, settings: RestSettings) -> str:
    """Raises UnacceptableSchemaError."""
    profile = headers.get("content-profile" if method in _WRITES else "accept-profile")
    if profile is None:
        return settings.schemas[0]
    if profile not in settings.schemas:
        raise UnacceptableSchemaError(
            f"Invalid schema: {profile}",
            hint=f"Only the following schemas are exposed: {', '.join(settings.schemas)}",
        )
    return profile


def read_request(
    http: HttpRequest, headers: Headers, target: Target, schema: str, body: bytes
) -> Incoming:
    """Raises RestError."""
    action = _action(http.method, target)
    query = read_query(http.query_string, is_call=action is Action.CALL_READ)
    wanted = requested_range(query.ranges, headers.get("range") if http.method == "GET" else None)
    if action is Action.PUT and wanted != ALL:
        raise PutRangeError
    payload = media_name = None
    if action in _WITH_BODY:
        media = parse_media_type(headers.get("content-type") or "application/json")
        media_name = media.name
        columns = shape_of(query).columns if action is not Action.PUT else None
        payload = read_payload(body, media, columns, is_call=action is Action.CALL)
    names = payload.arguments if payload is not None and payload.arguments else query.arguments
    request = Request(
        action,
        schema,
        target.name,
        query.outline,
        value_count=len(query.values),
        range_count=1 + sum(1 for path, _ in query.ranges if path),
        has_root_range=wanted != ALL,
        is_head=http.method == "HEAD",
        accept=headers.get("accept"),
        prefer=headers.all("prefer"),
        content_type=media_name,
        keys=() if payload is None else payload.keys,
        is_object=payload is None or payload.is_object,
        arguments=tuple(name for name, _ in names or ()),
    )
    return Incoming(http, headers, request, query, wanted, payload)


def _action(method: str, target: Target) -> Action:
    action = (_CALL_ACTIONS if target.is_function else _RELATION_ACTIONS).get(method)
    if action is not None:
        return action
    if target.is_function:
        raise InvalidRpcMethodError(f"Cannot use the {method} method on RPC")
    raise UnsupportedMethodError(f"Unsupported HTTP method: {method}")


def _page(page: Range, row_count_max: int | None) -> tuple[bytes | None, bytes]:
    limit = page.limit
    if row_count_max is not None:
        limit = row_count_max if limit is None else min(limit, row_count_max)
    return None if limit is None else b"%d" % limit, b"%d" % page.first
