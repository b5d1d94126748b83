"""Server-sent events: a request for changes, and what it is answered. Pure.

    GET /realtime/v1/changes?table=todos&event=INSERT&filter=id=gt.7&from=0/16B3748/3

    id: 0/16B3748/4
    event: INSERT
    data: {"schema":"public","table":"todos",...}

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import enum
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from butterbase.realtime.errors import (
    InvalidPositionError,
    InvalidSubscriptionError,
    LogNotReadyError,
    MissingKeyError,
    ResyncRequiredError,
    UnknownAppError,
    UnreadableRequestError,
)
from butterbase.realtime.session.protocol import HANDSHAKE_STATUS
from butterbase.realtime.window.position import Position, parse_position
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.errors import ButterbaseError, nearest

RETRY_MS: Final = 2_000
"""After which a browser connects again."""

_PATH: Final = re.compile(r"(?:/v1/(?P<app>[^/]+))?/realtime/v1/changes/?")
_LINE: Final = re.compile(r"(?P<method>[A-Z]{1,10}) (?P<target>/[\x21-\x7e]*) HTTP/1\.[01]")
_FIELD: Final = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[^\r\n\0]*)")
_FIELD_COUNT_MAX: Final = 100
_ENTRY: Final = ("event", "schema", "table", "filter")
_PUBLIC_KEY_PREFIX: Final = "sb_"
_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")

_STATUSES: Final[dict[type, int]] = {
    **HANDSHAKE_STATUS,
    InvalidSubscriptionError: 400,
    InvalidPositionError: 400,
    ResyncRequiredError: 410,
    LogNotReadyError: 503,
}


class EventStream(enum.Enum):
    """The form of what is sent, beside the versions of Phoenix's."""

    V1 = "text/event-stream"


# The request


class Head(Struct, frozen=True):
    method: str
    target: str
    headers: Mapping[str, str]
    """By lowercase names; of one that is repeated, the last."""


class ChangesRequest(Struct, frozen=True):
    app_id: str
    token: str
    entry: dict[str, Any]
    """As one of a join's `postgres_changes`."""
    since: Position | None
    is_reconnect: bool
    """Of a client that goes on by itself, and would not understand to be refused."""


def is_for_changes(line: bytes) -> bool:
    """Whether a request's line, or its beginning up to the version, is for us."""
    _, _, target = line.partition(b" ")
    path = target.split(b" ", 1)[0].split(b"?", 1)[0]
    return _PATH.fullmatch(unquote(path.decode("latin-1"))) is not None


def read_head(data: bytes) -> Head:
    """Read a request's line and headers, without the blank line. Raises UnreadableRequestError."""
    first, *lines = data.decode("latin-1").split("\r\n")
    line = _LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(text) for text in lines]
    if line is None or len(fields) > _FIELD_COUNT_MAX:
        raise UnreadableRequestError
    headers = {}
    for field in fields:
        if field is None:
            raise UnreadableRequestError
        headers[field["name"].lower()] = field["value"].rstrip(" \t")
    return Head(line["method"], line["target"], headers)


def read_request(head: Head) -> ChangesRequest:
    """Raises HandshakeError, InvalidPositionError."""
    path, _, fields = head.target.partition("?")
    place = _PATH.fullmatch(unquote(path))
    if place is None:
        raise UnknownAppError(f"there is no event stream at {path}")
    try:
        given = parse_qs(fields, max_num_fields=_FIELD_COUNT_MAX, keep_blank_values=True)
    except ValueError as error:
        raise UnreadableRequestError("the query has too many fields") from error
    query = {name: values[-1] for name, values in given.items()}
    # A browser's EventSource sends the position that it has come to, and the address of before.
    last_id = head.headers.get("last-event-id")
    text = last_id or query.get("from")
    entry: dict[str, Any] = {name: query[name] for name in _ENTRY if query.get(name)}
    if query.get("select"):
        entry["select"] = query["select"].split(",")
    return ChangesRequest(
        app_id=place["app"] or FIRST_APP,
        token=_token(head.headers, query),
        entry=entry,
        since=parse_position(text) if text else None,
        is_reconnect=bool(last_id),
    )


def _token(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The caller's own, or the app's key. Raises MissingKeyError."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    own = bearer.strip() if scheme.lower() == "bearer" else query.get("access_token", "")
    key = headers.get("x-api-key") or headers.get("apikey") or query.get("apikey", "")
    token = key if not own or own.startswith(_PUBLIC_KEY_PREFIX) else own
    if not token:
        raise MissingKeyError
    return token


# The answer

_STREAM: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would wait for more
    "Connection": "close",
    "Access-Control-Allow-Origin": "*",
}


def opening(position: str) -> bytes:
    """The head of the answer, and the position that it goes on from, which is no event."""
    return _head(HTTPStatus.OK, _STREAM) + f"retry: {RETRY_MS}\nid: {position}\n\n".encode()


def event(kind: str, position: bytes, data: bytes) -> bytes:
    """`data` is JSON, in which line breaks are blanks: values of type json keep theirs."""
    if b"\n" in data or b"\r" in data:
        data = data.translate(_BLANKS)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (position, kind.encode(), data)


def beat(position: str) -> bytes:
    """Something to be heard; a position where there is a new one, which raises no event."""
    return f"id: {position}\n\n".encode() if position else b":\n\n"


def resync_required(error: ResyncRequiredError) -> bytes:
    """What was missed cannot be told; what follows the error's position is."""
    data = msgspec.json.encode(_described(error))
    return event("resync_required", error.position.encode(), data)


def closed(code: str, message: str) -> bytes:
    """The last event: the stream ends, and may be asked for again."""
    data = msgspec.json.encode({"code": code, "message": message})
    return b"event: closed\ndata: %b\n\n" % data


def is_patient(head: Head) -> bool:
    """Whether the client comes again by itself after a stream that ended, but not after an error,
    as browsers do.
    """
    return EventStream.V1.value in head.headers.get("accept", "")


def refusal(error: ButterbaseError, *, is_patient: bool = False) -> bytes:
    """The whole answer to a request that is not served."""
    status = HTTPStatus(nearest(_STATUSES, type(error)))
    described = _described(error)
    if status is not HTTPStatus.SERVICE_UNAVAILABLE:
        return _answer(status, described, {})
    if is_patient:
        retry = f"retry: {RETRY_MS}\n\n".encode()
        return _head(HTTPStatus.OK, _STREAM) + retry + closed(error.code, described["message"])
    return _answer(status, described, {"Retry-After": str(RETRY_MS // 1000)})


def too_large() -> bytes:
    return _answer(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"message": "the request is too large"}, {}
    )


def preflight(head: Head) -> bytes:
    """The answer to a browser that asks whether it may send its headers."""
    fields = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, OPTIONS",
        "Access-Control-Allow-Headers": head.headers.get("access-control-request-headers", "*"),
        "Access-Control-Max-Age": "86400",
        "Content-Length": "0",
        "Connection": "close",
    }
    return _head(HTTPStatus.NO_CONTENT, fields)


def not_allowed() -> bytes:
    return _answer(HTTPStatus.METHOD_NOT_ALLOWED, {"message": "use GET"}, {"Allow": "GET, OPTIONS"})


def _described(error: ButterbaseError) -> dict[str, str]:
    described = {"code": error.code, "message": error.public_message}
    if isinstance(error, ResyncRequiredError):
        described["position"] = error.position
    return described


def _answer(status: HTTPStatus, body: Mapping[str, str], fields: Mapping[str, str]) -> bytes:
    content = msgspec.json.encode(body)
    common = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        "Access-Control-Allow-Origin": "*",
    }
    return _head(status, {**common, **fields}) + content


def _head(status: HTTPStatus, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{n}: {v}" for n, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
