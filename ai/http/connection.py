"""One HTTP request of an ASGI application whose answers take long: its body, whether its client is
still there, and its answer, whole or as a stream.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Self, TypeAlias

from butterbase.ai.calls.call import Header
from butterbase.ai.errors import ClientLeftError
from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.http.departures import Departures, Receive, Stay

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = Mapping[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")

_EXPOSED = (b"access-control-expose-headers", b"*")
_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-max-age", b"86400"),
]
_ALLOW_HEADERS = b"access-control-allow-headers"
# Proxies such as nginx would gather the events.
_UNBUFFERED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Connection:
    """The gateway's client. What is awaited within is cancelled when it leaves."""

    def __init__(
        self, departures: Departures, headers: Headers, receive: Receive, bytes_max: int
    ) -> None:
        self._departures = departures
        self._headers = headers
        self._receive = receive
        self._bytes_max = bytes_max
        self._stay: Stay | None = None

    @property
    def has_left(self) -> bool:
        return self._stay is not None and self._stay.has_left

    async def read(self) -> bytes:
        """Raises BodyTooLargeError before too much is held, ClientLeftError."""
        length = self._headers.get(b"content-length", b"")
        declared = int(length) if length.isdigit() else 0
        parts: list[bytes] = []
        received = 0
        while max(declared, received) <= self._bytes_max:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            part = message.get("body", b"")
            received += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                self._stay = self._departures.begin(self._receive)
                return parts[0] if len(parts) == 1 else b"".join(parts)
        raise BodyTooLargeError(f"the body is larger than {self._bytes_max} bytes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """What a client's leaving has cancelled ends here, without an error."""
        if self._stay is None:
            return False
        self._departures.end(self._stay)
        if not self.has_left or not isinstance(error, asyncio.CancelledError):
            return False
        self._stay.task.uncancel()
        return True


def text_of(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def added_headers(headers: Headers, request_id: str) -> list[Header]:
    """Of every answer to a request with these headers."""
    added = [(b"x-request-id", request_id.encode())]
    return [*added, _ANY_ORIGIN, _EXPOSED] if b"origin" in headers else added


async def answer_other(
    send: Send, method: str, allowed: str, headers: Headers, added: list[Header]
) -> bool:
    """Answer a request of another method than the allowed one. Returns whether it was one."""
    if method == allowed:
        return False
    if method == "OPTIONS":
        asked = headers.get(b"access-control-request-headers", b"*")
        await send_whole(send, 200, [*_PREFLIGHT, (_ALLOW_HEADERS, asked), *added], b"")
    else:
        await send_whole(send, 405, [(b"allow", allowed.encode()), *added], b"")
    return True


async def send_answer(
    send: Send, status: int, headers: list[Header], body: bytes | AsyncGenerator[bytes, None]
) -> None:
    """A stream is closed, however it ends."""
    if isinstance(body, bytes):
        await send_whole(send, status, headers, body)
        return
    try:
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [*headers, *_UNBUFFERED]})
        async for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await body.aclose()


async def send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
