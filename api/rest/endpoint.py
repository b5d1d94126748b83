"""The REST API as an ASGI application: what of HTTP is the same for every request.

It stands before Falcon, whose request and response cost as much as all that is done here.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.http.departures import Departures, Receive
from butterbase.api.callers import RequestIds
from butterbase.api.problems import Problem, Rendered, render
from butterbase.api.rest.cors import Cors, Header
from butterbase.api.rest.errors import ResponseStatusError
from butterbase.api.rest.header_fields import one_line
from butterbase.api.rest.raised import STATUS_MAX, STATUS_MIN
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import ANON, Claims
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.spool import Spool

logger = logging.getLogger(__name__)

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Given: TypeAlias = Mapping[bytes, bytes]
"""A request's headers; of one that is repeated, the first."""

WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_JSON = (b"content-type", b"application/json; charset=utf-8")
_WITHOUT_BODY = frozenset({204, 304})


class Service(Protocol):
    async def answer(self, http: HttpRequest, claims: Claims, body: bytes = b"") -> Answer: ...


Admit: TypeAlias = Callable[[str, str, Given], Awaitable[tuple[Service, Claims]]]
"""App id, method, headers → what answers, and the verified caller. Raises ButterbaseError."""


class EndpointSettings(Struct, frozen=True):
    body_bytes_max: int
    cors: Cors = Cors()
    anon_role: str | None = ANON
    """What this role may not do is 401 and not 403."""
    is_verbose: bool = True
    """Whether errors tell details and hints."""
    trace_header: bytes | None = None
    """In lowercase; sent back as it came."""


class RestEndpoint:
    def __init__(self, admit: Admit, settings: EndpointSettings, request_ids: RequestIds) -> None:
        self._admit = admit
        self._settings = settings
        self._request_ids = request_ids
        self._departures = Departures()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, app_id: str, path: str
    ) -> None:
        """`path` is what follows the prefix, percent-encoded."""
        given: Given = dict(reversed(scope["headers"]))
        method: str = scope["method"]
        added = self._common_headers(given)
        if method == "OPTIONS" and (preflight := self._preflight(given)) is not None:
            await _send(send, method, preflight, [])
            return
        claims: Claims | None = None
        stay = None
        try:
            try:
                began_s = time.perf_counter()
                service, claims = await self._admit(app_id, method, given)
                admission_s = time.perf_counter() - began_s
                body = await self._body(given, receive) if method in WITH_BODY else b""
                if body is None:
                    return  # the client has left
                query = scope["query_string"].decode("latin-1")
                http = HttpRequest(method, path, query, scope["headers"], admission_s)
                stay = self._departures.begin(receive)
                answer = await service.answer(http, claims, body)
                if not STATUS_MIN <= answer.status <= STATUS_MAX:
                    raise ResponseStatusError
                if isinstance(answer.body, Spool):
                    self._departures.watch(stay)
            except Exception as error:
                answer = self._refusal(error, claims, f"{method} {scope['path']}")
            await _send(send, method, answer, added)
        except asyncio.CancelledError:
            if stay is None or not stay.has_left:
                raise
            stay.task.uncancel()
        finally:
            if stay is not None:
                self._departures.end(stay)

    def _preflight(self, given: Given) -> Answer | None:
        """None for what is no preflight request, or from an origin that is not allowed."""
        if b"access-control-request-method" not in given:
            return None
        asked = given.get(b"access-control-request-headers", b"")
        headers = self._settings.cors.preflight(given.get(b"origin", b""), asked)
        return None if headers is None else Answer(200, headers, b"")

    def _common_headers(self, given: Given) -> list[Header]:
        """What every answer to this request has, errors included."""
        asked_id = given.get(b"x-request-id")
        request_id = self._request_ids.of(None if asked_id is None else asked_id.decode("latin-1"))
        added = [(b"x-request-id", request_id.encode())]
        origin = given.get(b"origin")
        if origin is not None:
            added += self._settings.cors.headers(origin)
        trace = self._settings.trace_header
        if trace is not None:
            added.append((trace, given.get(trace, b"")))
        return added

    async def _body(self, given: Given, receive: Receive) -> bytes | None:
        """None when the client has left. Raises BodyTooLargeError before too much is held."""
        bytes_max = self._settings.body_bytes_max
        length = given.get(b"content-length", b"")
        declared = int(length) if length.isdigit() else 0
        parts: list[bytes] = []
        received = 0
        while max(declared, received) <= bytes_max:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            received += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)
        raise BodyTooLargeError(f"the body is larger than {bytes_max} bytes")

    def _refusal(self, error: Exception, claims: Claims | None, request: str) -> Answer:
        is_anonymous = claims is None or claims.role == self._settings.anon_role
        rendered = render(error, is_anonymous=is_anonymous)
        if rendered.status >= 500:
            if isinstance(error, ButterbaseError):
                reasons = ": ".join(str(e) for e in (error, error.__cause__) if e is not None)
                logger.warning("%s: %s (%s)", request, reasons, type(error).__name__)
            else:
                logger.error("%s failed", request, exc_info=error)
        return self._rendered(rendered)

    def _rendered(self, rendered: Rendered) -> Answer:
        problem = rendered.problem
        # SQL may have raised any text as the code.
        proxy_status = b"PostgREST; error=" + one_line(problem.code).encode("ascii", "replace")
        headers = [_JSON, (b"proxy-status", proxy_status), *rendered.headers]
        body: Problem | dict[str, str] = problem
        if not self._settings.is_verbose:
            body = {"code": problem.code, "message": problem.message}
        return Answer(rendered.status, headers, msgspec.json.encode(body))


async def _send(send: Send, method: str, answer: Answer, added: list[Header]) -> None:
    headers, body = [*answer.headers, *added], answer.body
    if answer.status in _WITHOUT_BODY:
        body = b""
    elif method != "HEAD":
        size = len(body) if isinstance(body, bytes) else body.byte_count
        headers.append((b"content-length", b"%d" % size))
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": body})
            return
        if method != "HEAD":
            for piece in body.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                # Nothing waits for a client that reads as fast as this, or has left.
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    finally:
        if isinstance(answer.body, Spool):
            answer.body.close()
