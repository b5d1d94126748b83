"""A request on a connection of aiohttp's pool, and the head of its answer.

aiohttp's connector opens, counts and keeps the connections, and its protocol reads what comes. Its
session is left out: what that does for each request (cookies, redirects, forms, a task for the
body) takes as long as all else together, and nothing of it may happen here.
"""

from collections.abc import Mapping
from typing import TypeAlias

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from msgspec import Struct
from yarl import URL

Begun: TypeAlias = tuple[RawResponseMessage, aiohttp.StreamReader]
"""An answer's head, and its body as it comes."""

_LINE_END = "\r\n"


class Place(Struct, frozen=True):
    """Where a request goes."""

    address: aiohttp.ClientRequest
    """By which the connector knows whom to connect to; it is never sent."""
    host: str
    """With the port, where that is not the scheme's own."""
    path: str
    """With the query."""


def place_of(text: str) -> Place:
    """For the running loop. Raises ValueError for what is no URL of a server."""
    url = URL(text, encoded=True)
    if url.scheme not in {"http", "https"} or not url.raw_host or url.raw_user is not None:
        raise ValueError("not the URL of a server")
    path = url.raw_path_qs
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError("the URL's path is not encoded")
    return Place(aiohttp.ClientRequest("GET", url), url.host_port_subcomponent or "", path)


def render_head(place: Place, headers: Mapping[str, str], *, byte_count: int | None) -> bytes:
    """Of a POST with a body of so many bytes, or with None of a GET; names in any case.

    Raises ValueError for a header that would be more than one line.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    # Where the request ends is for nobody else to say.
    fields["host"] = place.host
    fields.pop("transfer-encoding", None)
    fields.pop("content-length", None)
    if byte_count is not None:
        fields["content-length"] = str(byte_count)
    method = "GET" if byte_count is None else "POST"
    lines = [f"{name}: {value}" for name, value in fields.items()]
    head = _LINE_END.join([f"{method} {place.path} HTTP/1.1", *lines, "", ""])
    count = len(lines) + 2
    if head.count("\n") != count or head.count("\r") != count or "\0" in head:
        raise ValueError("a header has a line break in it")
    return head.encode()


async def send(connection: Connection, head: bytes, body: bytes) -> Begun:
    """The connection is closed where that fails.

    Raises aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError.
    """
    try:
        protocol = connection.protocol
        transport = None if protocol is None else protocol.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was closed")
        protocol.set_response_params(read_until_eof=True)
        transport.write(head + body)
        while True:
            message, payload = await protocol.read()
            # Those of before are no answers (RFC 9110, 15.2).
            if message.code >= 200 or message.code == 101:
                return message, payload
    except BaseException:
        connection.close()
        raise
