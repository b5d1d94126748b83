"""Calls to models as an ASGI application: what of HTTP is the same for each of them.

It stands before Falcon, which neither tells when a client leaves nor lets that end a stream.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Caller, Header
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import Answer, Given
from butterbase.ai.errors import AiInternalError, ClientLeftError
from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.http.departures import Departures, Receive, Stay
from butterbase.ai.http.models import list_models
from butterbase.ai.http.problems import encode_error, status_of
from butterbase.ai.tools.agent import Agent
from butterbase.ai.wire.protocols import WireName
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Headers: TypeAlias = Mapping[bytes, bytes]

Authenticate: TypeAlias = Callable[[str, Headers], Awaitable[Claims]]
"""App id, headers → the verified caller, who may use models. Raises ButterbaseError."""

PATHS: Final[Mapping[str, Endpoint]] = {
    "chat/completions": Endpoint.CHAT,
    "ai/chat": Endpoint.CHAT,
    "responses": Endpoint.RESPONSES,
    "messages": Endpoint.MESSAGES,
    "embeddings": Endpoint.EMBEDDINGS,
}
"""Below an app's prefix."""

_JSON = (b"content-type", b"application/json")
_EXPOSED = (b"access-control-expose-headers", b"*")
_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
# Proxies such as nginx would gather the events.
_UNBUFFERED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

_log = logging.getLogger(__name__)


class AiEndpoint:
    """`POST` of a call, and `GET` of the models."""

    def __init__(
        self,
        gateway: Gateway,
        authenticate: Authenticate,
        *,
        request_id_of: Callable[[str | None], str],
        status_of: Callable[[ButterbaseError], int] = status_of,
        agent: Agent | None = None,
    ) -> None:
        """`status_of` knows also the errors of `authenticate`; without an agent no tool is run."""
        self._gateway = gateway
        self._call = gateway.call if agent is None else agent.call
        self._authenticate = authenticate
        self._request_id_of = request_id_of
        self._status_of = status_of
        self._departures = Departures()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, app_id: str, path: str
    ) -> None:
        """`path` is one of PATHS, or `models` and what follows it."""
        headers: Headers = dict(reversed(scope["headers"]))
        request_id = self._request_id_of(_text(headers, b"x-request-id"))
        added = [(b"x-request-id", request_id.encode())]
        if b"origin" in headers:
            added += [_ANY_ORIGIN, _EXPOSED]
        endpoint, method = PATHS.get(path), scope["method"]
        if method == "OPTIONS":
            await _send_whole(send, 200, [*_preflight(headers), *added], b"")
        elif method != ("GET" if endpoint is None else "POST"):
            allowed = b"GET" if endpoint is None else b"POST"
            await _send_whole(send, 405, [(b"allow", allowed), *added], b"")
        else:
            connection = _Connection(self._departures, headers, receive, self._bytes_max)
            asked = _Asked(app_id, path, endpoint, headers, request_id)
            try:
                await self._serve(asked, connection, send, added)
            except asyncio.CancelledError:
                if not connection.has_left:
                    raise
                connection.forgive()
            finally:
                connection.end()

    async def _serve(
        self, asked: "_Asked", connection: "_Connection", send: Send, added: list[Header]
    ) -> None:
        try:
            claims = await self._authenticate(asked.app_id, asked.headers)
            await self._gateway.check_caller(asked.app_id, claims.role)
            if asked.endpoint is None:
                body = await list_models(self._gateway, asked.app_id, asked.wire, asked.path)
                answer = Answer(200, [_JSON], body)
            else:
                caller = caller_of(asked.app_id, claims, asked.request_id)
                answer = await self._call(caller, asked.endpoint, connection, asked.given)
        except ButterbaseError as error:
            answer = self._refusal(error, asked)
        except Exception:
            _log.exception("request %s: %s failed", asked.request_id, asked.path)
            answer = self._refusal(AiInternalError(), asked)
        await _send(send, answer, added)

    def _refusal(self, error: ButterbaseError, asked: "_Asked") -> Answer:
        status = self._status_of(error)
        if status >= 500:
            reasons = ": ".join(str(e) for e in (error, error.__cause__) if e is not None)
            _log.warning("%s: %s (%s)", asked.path, reasons, type(error).__name__)
        told = encode_error(error, asked.wire, status=status)
        headers = [(name.encode(), value.encode()) for name, value in told.headers.items()]
        return Answer(told.status, [_JSON, *headers], told.body)

    @property
    def _bytes_max(self) -> int:
        return self._gateway.settings.ai_request_bytes_max


class _Asked(Struct, frozen=True):
    app_id: str
    path: str
    endpoint: Endpoint | None
    """None: the list of models."""
    headers: Headers
    request_id: str

    @property
    def wire(self) -> WireName:
        """The client's."""
        if self.endpoint is not None:
            return self.endpoint.wire
        return WireName.ANTHROPIC if b"anthropic-version" in self.headers else WireName.CHAT

    @property
    def given(self) -> Given:
        return Given(
            _text(self.headers, b"anthropic-beta") or "",
            _text(self.headers, b"cache-control") or "",
            self.headers,
        )


class _Connection:
    """The gateway's client. Its task is cancelled when it leaves."""

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

    def forgive(self) -> None:
        """The task is to go on as if it had not been cancelled."""
        assert self._stay is not None
        self._stay.task.uncancel()

    def end(self) -> None:
        if self._stay is not None:
            self._departures.end(self._stay)


def caller_of(app_id: str, claims: Claims, request_id: str) -> Caller:
    return Caller(
        app_id, claims.role, _uuid(claims.subject), request_id, key_id=_uuid(claims.key_id)
    )


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None


def _preflight(headers: Headers) -> list[Header]:
    asked = headers.get(b"access-control-request-headers", b"*")
    return [
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"86400"),
    ]


async def _send(send: Send, answer: Answer, added: list[Header]) -> None:
    body = answer.body
    if isinstance(body, bytes):
        await _send_whole(send, answer.status, [*answer.headers, *added], body)
        return
    headers = [*answer.headers, *_UNBUFFERED, *added]
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        async for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await body.aclose()


async def _send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
