"""The upgrade request: which app, which key, which serializer."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

from msgspec import Struct

from butterbase.realtime.errors import MissingKeyError, UnknownAppError, UnsupportedVersionError
from butterbase.realtime.protocol import Version

DEFAULT_APP = "main"
"""The app at the origin's root."""

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
    return Handshake(place["app"] or DEFAULT_APP, key, version)
