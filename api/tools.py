"""What tools of models run on: the app's REST API in this process, its functions over HTTP.

Each request is admitted as the caller's own would be, with the headers that they sent: a key
without the scope, or a token that has expired meanwhile, opens nothing here either.
"""

import logging
import time
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import msgspec

from butterbase.ai.tools.ports import BackendAnswer, DataRequest, Exposed, Invocation
from butterbase.api.apps import Apps
from butterbase.api.callers import verify_caller
from butterbase.api.functions.runtime.model import DEPTH_HEADER
from butterbase.api.keys.key import Scope
from butterbase.api.operators.operators import Operators
from butterbase.api.problems import Problem, render
from butterbase.api.rest.admission import AppAdmission
from butterbase.api.rest.endpoint import Given
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.claims import ANON
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError
from butterbase.sql.spool import Spool

CONNECTION_COUNT_MAX = 100
_CREDENTIALS = (b"authorization", b"apikey")
_JSON = b"application/json"
_DEPTH = DEPTH_HEADER.encode()

_log = logging.getLogger(__name__)


class AppBackend:
    """For the apps of an installation."""

    def __init__(self, apps: Apps, operators: Operators | None, *, functions_url: str) -> None:
        """`functions_url` is where this machine reaches the api."""
        self._apps = apps
        self._operators = operators
        self._admit = AppAdmission(apps, operators)
        self._functions_url = functions_url
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def exposed(self, app_id: str, *, is_fresh: bool = False) -> Exposed:
        """Raises DatabaseUnavailableError, UnknownAppError."""
        app = await self._apps.find(app_id)
        if is_fresh:
            await app.schema.catch_up()
        if app.schema.current is None:
            raise DatabaseUnavailableError("the app's schema could not be read yet")
        return Exposed(app.schema.current, app.rest.settings.schemas)

    async def request(
        self,
        app_id: str,
        headers: Mapping[bytes, bytes],
        request: DataRequest,
        *,
        bytes_max: int,
    ) -> BackendAnswer:
        is_anonymous = True
        try:
            service, claims = await self._admit(app_id, request.method, _credentials(headers))
            is_anonymous = claims.role == ANON
            http = HttpRequest(request.method, request.path, request.query, _headers(request))
            answer = await service.answer(http, claims, request.body)
        except Exception as error:
            return _refusal(error, is_anonymous=is_anonymous)
        body, byte_count = _read(answer.body, bytes_max)
        return BackendAnswer(answer.status, body, byte_count, _row_count(answer.headers))

    async def invoke(
        self,
        app_id: str,
        headers: Mapping[bytes, bytes],
        invocation: Invocation,
        *,
        request_id: str,
        bytes_max: int,
    ) -> BackendAnswer:
        given = _credentials(headers)
        try:
            await self._check_may_invoke(app_id, given)
        except Exception as error:
            return _refusal(error, is_anonymous=True)
        prefix = "" if app_id == FIRST_APP else f"/v1/{quote(app_id, safe='')}"
        url = f"{self._functions_url}{prefix}/functions/v1/{quote(invocation.name, safe='')}"
        sent = {
            name.decode(): given[name].decode("latin-1") for name in _CREDENTIALS & given.keys()
        }
        sent |= {"content-type": "application/json", "x-request-id": request_id}
        if (depth := headers.get(_DEPTH)) is not None:
            # Else functions that ask models which call functions would go round for ever.
            sent[DEPTH_HEADER] = depth.decode("latin-1")
        try:
            async with self._client().post(
                url, data=invocation.body, headers=sent, allow_redirects=False
            ) as response:
                body, byte_count = await _read_response(response, bytes_max)
                return BackendAnswer(response.status, body, byte_count)
        except (aiohttp.ClientError, OSError) as error:
            _log.warning("the function %s: %s: %s", invocation.name, type(error).__name__, error)
            return _answer(503, Problem("function_unavailable", "functions cannot be reached"))

    async def _check_may_invoke(self, app_id: str, given: Given) -> None:
        """Raises UnknownAppError, and what `verify_caller` does."""
        app = await self._apps.find(app_id)
        await verify_caller(
            app.tokens,
            app.keyring,
            scope=Scope.FUNCTIONS,
            authorization=_text(given, b"authorization"),
            key=_text(given, b"apikey"),
            now_s=time.time(),
            operators=self._operators,
        )

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTION_COUNT_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # the caller's to watch
                headers={"user-agent": "butterbase"},
            )
        return self._session


def _credentials(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Nothing else of the caller's request; Anthropic's clients send their key as `x-api-key`."""
    given = {name: headers[name] for name in _CREDENTIALS if name in headers}
    if b"apikey" not in given and b"x-api-key" in headers:
        given[b"apikey"] = headers[b"x-api-key"]
    return given


def _headers(request: DataRequest) -> list[tuple[bytes, bytes]]:
    headers = [(b"accept", _JSON)]
    if request.body:
        headers.append((b"content-type", _JSON))
    if request.prefer:
        headers.append((b"prefer", request.prefer.encode()))
    if request.schema is not None:
        profile = b"accept-profile" if request.method == "GET" else b"content-profile"
        headers.append((profile, request.schema.encode()))
    return headers


def _refusal(error: Exception, *, is_anonymous: bool) -> BackendAnswer:
    """As the REST API tells it."""
    rendered = render(error, is_anonymous=is_anonymous)
    if rendered.status >= 500:
        if isinstance(error, ButterbaseError):
            _log.warning("a tool: %s (%s)", error.message, type(error).__name__)
        else:
            _log.error("a tool failed", exc_info=error)
    return _answer(rendered.status, rendered.problem)


def _answer(status: int, problem: Problem) -> BackendAnswer:
    body = msgspec.json.encode(problem)
    return BackendAnswer(status, body, len(body))


def _read(body: bytes | Spool, bytes_max: int) -> tuple[bytes, int]:
    """What of it is wanted, and how long it is."""
    if isinstance(body, bytes):
        return body[:bytes_max], len(body)
    try:
        parts, size = [], 0
        for piece in body.pieces():
            parts.append(piece)
            size += len(piece)
            if size >= bytes_max:
                break
        return b"".join(parts)[:bytes_max], body.byte_count
    finally:
        body.close()


async def _read_response(response: aiohttp.ClientResponse, bytes_max: int) -> tuple[bytes, int]:
    """Of one that is too long the rest is not waited for."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > bytes_max:
            break
    return bytes(body[:bytes_max]), len(body)


def _row_count(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Of `Content-Range: */3`, where rows were counted."""
    ranges = [value for name, value in headers if name.lower() == b"content-range"]
    count = ranges[0].rpartition(b"/")[2] if ranges else b""
    return int(count) if count.isdigit() else None


def _text(given: Given, name: bytes) -> str | None:
    value = given.get(name)
    return None if value is None else value.decode("latin-1")
