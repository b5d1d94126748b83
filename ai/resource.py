"""The AI gateway over HTTP: OpenAI's paths for its clients, and ours for configuration and usage.

The api's middleware has verified the caller and set `req.context`: `app_id`, `claims` and
`request_id`. Errors have OpenAI's form on all of these paths.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

import falcon.asgi
import msgspec
import psycopg
from falcon.asgi import Request, Response
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.body import decode_json, read_body
from butterbase.ai.config import POOL_TIMEOUT_S, AiConfigChange, AiConfigs
from butterbase.ai.errors import (
    AiConfigError,
    AiRequestError,
    AiRoleDeniedError,
    AnonymousAiDeniedError,
    ClientLeftError,
    ProviderMissingError,
    UpstreamRefusedError,
)
from butterbase.ai.gateway import Caller, Gateway, Parts
from butterbase.ai.problems import render_error
from butterbase.ai.providers import Endpoint
from butterbase.projections.usage import UsageGrouping, usage_report
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE, Claims
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError

T = TypeVar("T")

_CONFIG_BYTES_MAX = 256 * 1024
_USAGE_DAYS = 30
"""Reported when no dates are given."""
_USAGE_DAYS_MAX = 366

_CONFIG_CHANGE = msgspec.json.Decoder(AiConfigChange)


def add_routes(
    app: "falcon.asgi.App[Any, Any]",
    gateway: Gateway,
    configs: AiConfigs,
    pool: AsyncConnectionPool[AsyncConnection],
    *,
    prefix: str = "/v1/{app_id}",
) -> None:
    """`pool` is the control database's, as butterbase_service."""
    app.add_route(f"{prefix}/chat/completions", CallResource(gateway, Endpoint.CHAT))
    app.add_route(f"{prefix}/embeddings", CallResource(gateway, Endpoint.EMBEDDINGS))
    app.add_route(f"{prefix}/models", ModelsResource(gateway))
    app.add_route(f"{prefix}/ai/config", ConfigResource(configs))
    app.add_route(f"{prefix}/ai/usage", UsageResource(pool))


def _errors_as_openais(
    responder: Callable[[T, Request, Response], Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    @wraps(responder)
    async def wrapped(self: T, req: Request, resp: Response, **_: str) -> None:
        try:
            await responder(self, req, resp)
        except ButterbaseError as error:
            resp.status, resp.data = render_error(error)
            resp.content_type = falcon.MEDIA_JSON
            if isinstance(error, UpstreamRefusedError):
                resp.set_headers(error.headers)
            if isinstance(error, ProviderMissingError):
                # OpenAI's clients would try a 503 again.
                resp.set_header("x-should-retry", "false")

    return wrapped


class CallResource:
    """`POST chat/completions` and `POST embeddings`."""

    def __init__(self, gateway: Gateway, endpoint: Endpoint) -> None:
        self._gateway = gateway
        self._endpoint = endpoint

    @_errors_as_openais
    async def on_post(self, req: Request, resp: Response) -> None:
        _check_may_call(req.context.claims)
        size_max = self._gateway.settings.ai_request_bytes_max
        answer = await self._gateway.call(
            _caller(req), self._endpoint, lambda: _read(req, size_max), lambda: _client_left(req)
        )
        resp.status = answer.status
        resp.content_type = answer.content_type
        if isinstance(answer.body, Parts):
            # Proxies such as nginx would gather the events.
            resp.set_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
            resp.stream = answer.body
        else:
            resp.data = answer.body


class ModelsResource:
    """`GET models`: what the provider lists and the app allows."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @_errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        _check_may_call(req.context.claims)
        resp.data = await self._gateway.list_models(req.context.app_id)
        resp.content_type = falcon.MEDIA_JSON


class ConfigResource:
    """`GET` and `PUT ai/config`, for the app's service role."""

    def __init__(self, configs: AiConfigs) -> None:
        self._configs = configs

    @_errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        _check_is_service(req.context.claims)
        _answer(resp, await self._configs.read(req.context.app_id))

    @_errors_as_openais
    async def on_put(self, req: Request, resp: Response) -> None:
        _check_is_service(req.context.claims)
        change = decode_json(_CONFIG_CHANGE, await _read(req, _CONFIG_BYTES_MAX), AiConfigError)
        _answer(resp, await self._configs.change(req.context.app_id, change))


class UsageResource:
    """`GET ai/usage`: the service role sees all of the app's, a user what is theirs."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    @_errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        claims: Claims = req.context.claims
        _check_may_call(claims)
        user_id = None
        if claims.role != SERVICE_ROLE:
            user_id = _user_id(claims)
            if user_id is None:
                raise AiRoleDeniedError("the token names no user whose usage this could be")
        start, end = _days(req)
        try:
            async with self._pool.connection(POOL_TIMEOUT_S) as conn:
                report = await usage_report(
                    conn,
                    req.context.app_id,
                    start=start,
                    end=end,
                    group_by=_grouping(req),
                    user_id=user_id,
                )
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError from error
        _answer(resp, report)


def _answer(resp: Response, value: object) -> None:
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON


def _check_may_call(claims: Claims) -> None:
    if claims.role not in {AUTHENTICATED, SERVICE_ROLE}:
        raise AnonymousAiDeniedError(
            hint="sign in, and send the user's access token; the anon key alone is public"
        )


def _check_is_service(claims: Claims) -> None:
    if claims.role != SERVICE_ROLE:
        raise AiRoleDeniedError(hint="use the app's service key, on a server only")


def _caller(req: Request) -> Caller:
    claims: Claims = req.context.claims
    return Caller(req.context.app_id, claims.role, _user_id(claims), req.context.request_id)


def _user_id(claims: Claims) -> UUID | None:
    try:
        return None if claims.subject is None else UUID(claims.subject)
    except ValueError:
        return None


async def _read(req: Request, bytes_max: int) -> bytes:
    """Raises BodyTooLargeError, ClientLeftError."""
    body = await read_body(req, bytes_max=bytes_max)
    if len(body) < (req.content_length or 0):
        raise ClientLeftError
    return body


async def _client_left(req: Request) -> None:
    """Return when the client has gone. To be called after the body is read, and once."""
    # Falcon tells of it only while it sends server-sent events of its own, and then at the next
    # event. The server's channel is idle by now; a response that was sent ends it as well.
    while (await req._receive())["type"] != "http.disconnect":
        pass


def _days(req: Request) -> tuple[date, date]:
    """First and last day. Raises AiRequestError."""
    end = _date(req, "endDate") or datetime.now(UTC).date()
    try:
        start = _date(req, "startDate") or end - timedelta(days=_USAGE_DAYS - 1)
    except OverflowError as error:
        raise AiRequestError("no days come before it", param="endDate") from error
    if not timedelta(0) <= end - start < timedelta(days=_USAGE_DAYS_MAX):
        raise AiRequestError(
            f"startDate to endDate must be 1 to {_USAGE_DAYS_MAX} days", param="startDate"
        )
    return start, end


def _date(req: Request, name: str) -> date | None:
    text = req.get_param(name)
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise AiRequestError("it must be a date such as 2026-01-31", param=name) from error


def _grouping(req: Request) -> UsageGrouping:
    text = req.get_param("groupBy") or UsageGrouping.MODEL
    try:
        return UsageGrouping(text)
    except ValueError as error:
        raise AiRequestError(
            "it must be one of " + ", ".join(UsageGrouping), param="groupBy"
        ) from error
