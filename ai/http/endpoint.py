"""Calls to models as an ASGI application: what of HTTP is the same for each of them.

It stands before Falcon, which neither tells when a client leaves nor lets that end a stream.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Header
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import Answer, Given
from butterbase.ai.errors import AiInternalError
from butterbase.ai.http.callers import caller_of
from butterbase.ai.http.connection import (
    JSON,
    Connection,
    Headers,
    Scope,
    Send,
    added_headers,
    answer_other,
    send_answer,
    text_of,
)
from butterbase.ai.http.departures import Departures, Receive
from butterbase.ai.http.models import list_models
from butterbase.ai.http.problems import encode_error, status_of
from butterbase.ai.tools.agent import Agent
from butterbase.ai.wire.protocols import WireName
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError

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
        request_id = self._request_id_of(text_of(headers, b"x-request-id"))
        added = added_headers(headers, request_id)
        endpoint = PATHS.get(path)
        allowed = "GET" if endpoint is None else "POST"
        if await answer_other(send, scope["method"], allowed, headers, added):
            return
        asked = _Asked(app_id, path, endpoint, headers, request_id)
        with Connection(self._departures, headers, receive, self._bytes_max) as connection:
            await self._serve(asked, connection, send, added)

    async def _serve(
        self, asked: "_Asked", connection: Connection, send: Send, added: list[Header]
    ) -> None:
        try:
            claims = await self._authenticate(asked.app_id, asked.headers)
            caller = caller_of(asked.app_id, claims, asked.request_id)
            await self._gateway.check_caller(caller)
            if asked.endpoint is None:
                body = await list_models(self._gateway, asked.app_id, asked.wire, asked.path)
                answer = Answer(200, [JSON], body)
            else:
                answer = await self._call(caller, asked.endpoint, connection, asked.given)
        except ButterbaseError as error:
            answer = self._refusal(error, asked)
        except Exception:
            _log.exception("request %s: %s failed", asked.request_id, asked.path)
            answer = self._refusal(AiInternalError(), asked)
        await send_answer(send, answer.status, answer.headers + added, answer.body)

    def _refusal(self, error: ButterbaseError, asked: "_Asked") -> Answer:
        status = self._status_of(error)
        if status >= 500:
            reasons = ": ".join(str(e) for e in (error, error.__cause__) if e is not None)
            _log.warning("%s: %s (%s)", asked.path, reasons, type(error).__name__)
        told = encode_error(error, asked.wire, status=status)
        headers = [(name.encode(), value.encode()) for name, value in told.headers.items()]
        return Answer(told.status, [JSON, *headers], told.body)

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
            text_of(self.headers, b"anthropic-beta") or "",
            text_of(self.headers, b"cache-control") or "",
            self.headers,
        )
