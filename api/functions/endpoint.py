"""Calls of functions as an ASGI application: who may call, and the way to what runs them.

It stands before Falcon, which neither tells when a client leaves nor lets that end a call. What a
function answers is passed on as it comes, CORS headers included, which are the function's to send.
https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from butterbase.ai.http.departures import Receive
from butterbase.api.apps import AppRuntime, Apps
from butterbase.api.auth.proxies import Proxies
from butterbase.api.callers import RequestIds, bearer_of, verify_caller
from butterbase.api.functions.client import FunctionsClient, Target
from butterbase.api.functions.gates import Gates
from butterbase.api.functions.runtime.errors import FunctionCrashedError, FunctionsUnavailableError
from butterbase.api.functions.runtime.model import DEPTH_HEADER, CallContext, CallRequest
from butterbase.api.functions.store import Gate
from butterbase.api.functions.tokens import FunctionTokens
from butterbase.api.keys.key import Scope as KeyScope
from butterbase.api.operators.operators import Operators
from butterbase.api.problems import render
from butterbase.api.rest.endpoint import Scope, Send
from butterbase.sql.claims import ANON, Claims
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
# A browser shows a page no error of ours without them.
_ANY_ORIGIN: Final = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"*"),
]
# The dashboard is of the same origin. A page of a function's is made to be of none: it runs its
# scripts, and finds no key of whoever looks at it. https://www.w3.org/TR/CSP3/#directive-sandbox
_SANDBOX: Final = (
    b"content-security-policy",
    b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox"
    b" allow-scripts allow-top-navigation-by-user-activation",
)
_RELAY_ERROR: Final = (b"x-relay-error", b"true")


class FunctionsEndpoint:
    def __init__(
        self,
        apps: Apps,
        client: FunctionsClient,
        gates: Gates,
        request_ids: RequestIds,
        *,
        url: str,
        operators: Operators | None = None,
        proxies: Proxies,
        trusts_pages: bool = False,
    ) -> None:
        """`url` is the origin that functions see their requests at; `trusts_pages` whether pages
        that they answer with may do what others of that origin may.
        """
        self._apps = apps
        self._client = client
        self._gates = gates
        self._request_ids = request_ids
        self._url = url
        self._operators = operators
        self._proxies = proxies
        self._of_pages = [] if trusts_pages else [_SANDBOX]
        self._tokens: dict[str, tuple[AppRuntime, FunctionTokens]] = {}

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, app_id: str, name: str, path: str
    ) -> None:
        """`path` is what follows the function's name, percent-encoded."""
        headers = dict(reversed(scope["headers"]))
        request_id = self._request_ids.of(_text(headers, b"x-request-id"))
        added: list[Header] = [(b"x-request-id", request_id.encode())]
        try:
            app = await self._apps.find(app_id)
            gate = await self._gates.get(app, name)
            caller = await self._admit(app, gate, scope["method"], headers)
            request = self._request(scope, headers, app, name, path, gate, caller, request_id)
            await self._client.relay(
                Target(app_id, name),
                request,
                receive,
                send,
                added=[*added, *self._of_pages],
                is_chunked=b"transfer-encoding" in headers,
            )
        except Exception as error:
            await self._refuse(send, error, f"{scope['method']} {scope['path']}", added)

    async def _admit(
        self, app: AppRuntime, gate: Gate, method: str, headers: Mapping[bytes, bytes]
    ) -> Claims | None:
        """None for nobody we know, who may call what takes anybody; and for a browser that asks.

        Raises what `verify_caller` does.
        """
        if method == "OPTIONS":
            return None
        authorization, key = _text(headers, b"authorization"), _text(headers, b"apikey")
        if not gate.verify_jwt and authorization is None and key is None:
            return None
        try:
            return await verify_caller(
                app.tokens,
                app.keyring,
                scope=KeyScope.FUNCTIONS,
                authorization=authorization,
                key=key,
                now_s=time.time(),
                operators=self._operators,
            )
        except ButterbaseError:
            if gate.verify_jwt:
                raise
            return None  # the header may be the function's own affair

    def _request(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        app: AppRuntime,
        name: str,
        path: str,
        gate: Gate,
        caller: Claims | None,
        request_id: str,
    ) -> CallRequest:
        query = scope["query_string"].decode("latin-1")
        client = scope.get("client")
        token = bearer_of(_text(headers, b"authorization")) or _text(headers, b"apikey")
        return CallRequest(
            scope["method"],
            f"{self._url}/{name}{path}{'?' if query else ''}{query}",
            tuple(
                (key.decode("latin-1"), value.decode("latin-1"))
                for key, value in scope["headers"]
                if key not in _HOP_BY_HOP and not _is_ours(key)
            ),
            CallContext(
                invocation_id=str(uuid.uuid4()),
                request_id=request_id,
                user=_user(caller),
                token=None if caller is None else token,
                service_token=self._tokens_of(app).get(name, service=gate.service),
                ip=self._proxies.client_of(
                    client[0] if client else "", _text(headers, b"x-forwarded-for")
                )
                or None,
            ),
        )

    def _tokens_of(self, app: AppRuntime) -> FunctionTokens:
        known = self._tokens.get(app.id)
        if known is None or known[0] is not app:
            known = self._tokens[app.id] = app, FunctionTokens(app.tokens)
        return known[1]

    async def _refuse(
        self, send: Send, error: Exception, request: str, added: list[Header]
    ) -> None:
        rendered = render(error)
        if rendered.status >= 500:
            if isinstance(error, ButterbaseError):
                logger.warning("%s: %s (%s)", request, error, type(error).__name__)
            else:
                logger.error("%s failed", request, exc_info=error)
        body = msgspec.json.encode(rendered.problem)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *rendered.headers,
            *_ANY_ORIGIN,
            *added,
        ]
        if isinstance(error, FunctionCrashedError | FunctionsUnavailableError):
            headers.append(_RELAY_ERROR)
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": rendered.status,
            "headers": headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _is_ours(name: bytes) -> bool:
    """What we tell functions, nobody else does; but how deep a call is, they tell us."""
    return name.startswith(b"x-butterbase-") and name != DEPTH_HEADER.encode()


def _user(caller: Claims | None) -> dict[str, Any] | None:
    """The claims of a user; a key is nobody."""
    if caller is None or caller.role == ANON or caller.subject is None:
        return None
    claims: dict[str, Any] = msgspec.json.decode(caller.json)
    return claims


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
