"""The upgrade request: which app, which key, which serializer; and how it is refused."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

from msgspec import Struct
from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import SecurityError
from websockets.http11 import Response

from butterbase.realtime.errors import MissingKeyError, UnknownAppError, UnsupportedVersionError
from butterbase.realtime.session.protocol import HANDSHAKE_STATUS, Version
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.errors import ButterbaseError, nearest

_PATH = re.compile(r"(?:/v1/(?P<app>[^/]+))?/realtime/v1/websocket/?")
_FIELD_COUNT_MAX = 100


class Handshake(Struct, frozen=True):
    app_id: str
    key: str
    version: Version


def read_handshake(target: str, headers: Mapping[str, str]) -> Handshake:
    """Read the request target and headers, whose names are matched without case by the mapping.

    A key in a header beats the one in the query. Raises HandshakeError.
    """
    path, _, fields = target.partition("?")
    place = _PATH.fullmatch(unquote(path))
    if place is None:
        raise UnknownAppError(f"there is no websocket at {path}")
    try:
        query = parse_qs(fields, max_num_fields=_FIELD_COUNT_MAX)
    except ValueError as error:
        raise MissingKeyError("the query has too many fields") from error
    key = headers.get("x-api-key") or headers.get("apikey") or query.get("apikey", [""])[0]
    if not key:
        raise MissingKeyError
    wanted = query.get("vsn", [Version.V1.value])[0]
    try:
        version = Version(wanted)
    except ValueError as error:
        raise UnsupportedVersionError(f"vsn {wanted} is not supported") from error
    return Handshake(place["app"] or FIRST_APP, key, version)


def answer_to(error: Exception) -> Response:
    """The refusal of a request that failed so: an error of ours, or one that nobody foresaw."""
    match error:
        case ButterbaseError():
            return refusal(HTTPStatus(nearest(HANDSHAKE_STATUS, type(error))), error.message)
        case MultipleValuesError():
            return refusal(HTTPStatus.UNAUTHORIZED, "the key is given twice")
        case _:
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the websocket could not be opened")


def answer_to_unreadable(reason: BaseException | None) -> Response:
    """The refusal of bytes that are no upgrade request, by what their parser raised."""
    if isinstance(reason, SecurityError):  # its limits on lines and headers
        return TOO_LARGE
    return refusal(HTTPStatus.BAD_REQUEST, f"not an upgrade request: {reason}")


def refusal(status: HTTPStatus, message: str) -> Response:
    body = json.dumps({"error": message}).encode()
    headers = Headers(
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
    )
    return Response(status.value, status.phrase, headers, body)


TOO_LARGE = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large")
