"""The AI gateway's configuration and usage over HTTP; its calls are ai/http/endpoint.py's.

The api's middleware has verified the caller and set `req.context`: `app_id`, `claims` and
`request_id`. Errors have OpenAI's form on all of these paths.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from typing import Any

import falcon.asgi
import msgspec
import psycopg
from falcon.asgi import Request, Response
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.config.configs import AiConfigChange, AiConfigs
from butterbase.ai.errors import (
    AiConfigError,
    AiRequestError,
    AiRoleDeniedError,
    AnonymousAiDeniedError,
    ClientLeftError,
)
from butterbase.ai.http.body import decode_json, read_body
from butterbase.ai.http.callers import user_id_of
from butterbase.ai.http.problems import render_error
from butterbase.projections.usage_report import UsageGrouping, usage_report
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE, Claims
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError

POOL_TIMEOUT_S = 2.0
"""Wait for a connection to the control database; beyond it, it counts as unavailable."""

_CONFIG_BYTES_MAX = 2 * 1024**2
_USAGE_DAYS = 30
"""Reported when no dates are given."""
_USAGE_DAYS_MAX = 366

_CONFIG_CHANGE = msgspec.json.Decoder(AiConfigChange)


def add_routes(
    app: "falcon.asgi.App[Any, Any]",
    configs: AiConfigs,
    pool: AsyncConnectionPool[AsyncConnection],
    *,
    prefix: str = "/v1/{app_id}",
) -> None:
    """`pool` is the control database's, as butterbase_service."""
    app.add_route(f"{prefix}/ai/config", ConfigResource(configs))
    app.add_route(f"{prefix}/ai/usage", UsageResource(pool))


def errors_as_openais(
    responder: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    @wraps(responder)
    async def wrapped(self: object, req: Request, resp: Response, **params: str) -> None:
        params.pop("app_id", None)
        try:
            await responder(self, req, resp, **params)
        except ButterbaseError as error:
            resp.status, resp.data = render_error(error)
            resp.content_type = falcon.MEDIA_JSON

    return wrapped


class ConfigResource:
    """`GET` and `PUT ai/config`, for the app's service role."""

    def __init__(self, configs: AiConfigs) -> None:
        self._configs = configs

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        _answer(resp, await self._configs.read(req.context.app_id))

    @errors_as_openais
    async def on_put(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        change = decode_json(_CONFIG_CHANGE, await _read(req, _CONFIG_BYTES_MAX), _config_refusal)
        _answer(resp, await self._configs.change(req.context.app_id, change))


class UsageResource:
    """`GET ai/usage`: the service role sees all of the app's, a user what is theirs."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        claims: Claims = req.context.claims
        _check_may_call(claims)
        user_id = None
        if claims.role != SERVICE_ROLE:
            user_id = user_id_of(claims)
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


def check_is_service(claims: Claims) -> None:
    if claims.role != SERVICE_ROLE:
        raise AiRoleDeniedError(hint="use the app's service key, on a server only")


async def _read(req: Request, bytes_max: int) -> bytes:
    """Raises BodyTooLargeError, ClientLeftError."""
    body = await read_body(req, bytes_max=bytes_max)
    if len(body) < (req.content_length or 0):
        raise ClientLeftError
    return body


def _config_refusal(reason: str) -> AiConfigError:
    """Names the field as the other checks of the configuration do: `routes[0].targets`."""
    at = re.search(r"`\$\.(\S+)`", reason) or re.search(r"unknown field `(\S+)`", reason)
    # The reason has dots for a name that the client has given.
    return AiConfigError(reason, param=at and at[1].partition("[...]")[0])


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
