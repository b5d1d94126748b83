"""Errors of `/auth/v1` on their way out, as auth-js and supabase_auth read them.

Newer clients send a version and read `code`; older ones read `error_code` and `msg`.
"""

import logging
import re
from typing import Any

import falcon
import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api import problems
from butterbase.api.auth.errors import AuthError, LimitedError, WeakPasswordError
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
)

logger = logging.getLogger(__name__)

_PATH = re.compile(r"(?:/v1/[^/]+|/operators)?/auth/v1(?:/.*)?")
_VERSION_HEADER = "X-Supabase-Api-Version"
_VERSION = "2024-01-01"
_UNEXPECTED = "unexpected_failure"
_RAISED = "P0001"
"""What a developer's trigger or function says on purpose."""


def add_handlers(app: "App[Any, Any]") -> None:
    """After those of the other paths, whose place they take below `/auth/v1`."""
    app.add_error_handler(Exception, _on_bug)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(ButterbaseError, _on_error)


async def _on_error(
    req: Request, resp: Response, error: ButterbaseError, params: dict[str, object]
) -> None:
    if not _PATH.fullmatch(req.path):
        await problems.on_error(req, resp, error, params)
        return
    status, code, message = parts_of(error)
    if status >= 500:
        logger.warning("%s %s: %s (%s)", req.method, req.path, error, type(error).__name__)
    weak = {"reasons": error.reasons} if isinstance(error, WeakPasswordError) else None
    _respond(req, resp, status, code, message, weak_password=weak)
    if isinstance(error, LimitedError):
        resp.set_header("Retry-After", str(error.retry_after_s))
    if isinstance(error, DatabaseUnavailableError):
        resp.set_header("Retry-After", str(problems.RETRY_AFTER_S))


async def _on_http_error(
    req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, object]
) -> None:
    if not _PATH.fullmatch(req.path):
        await problems.on_http_error(req, resp, error, params)
        return
    code = "not_found" if error.status_code == 404 else f"http_{error.status_code}"
    _respond(req, resp, error.status_code, code, error.description or error.title or code)
    resp.set_headers(error.headers or {})


async def _on_bug(
    req: Request, resp: Response, error: Exception, params: dict[str, object]
) -> None:
    if not _PATH.fullmatch(req.path):
        await problems.on_bug(req, resp, error, params)
        return
    logger.error("%s %s failed", req.method, req.path, exc_info=error)
    _respond(req, resp, 500, _UNEXPECTED, problems.BUG.message)


def parts_of(error: ButterbaseError) -> tuple[int, str, str]:
    """Status, code and message."""
    if isinstance(error, AuthError):
        return error.status, error.code, error.message
    if isinstance(error, InvalidTokenError):
        return 403, "bad_jwt", f"invalid JWT: {error.message}"
    if isinstance(error, DatabaseError):
        # What Postgres says may hold what is nobody's business here.
        message = error.message if error.sqlstate == _RAISED else "Database error"
        return 500, _UNEXPECTED, message
    return problems.status_of(error), error.code, error.public_message


def _respond(
    req: Request,
    resp: Response,
    status: int,
    code: str,
    message: str,
    *,
    weak_password: dict[str, Any] | None = None,
) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("X-Sb-Error-Code", code)
    body: dict[str, object]
    if (req.get_header(_VERSION_HEADER) or "") >= _VERSION:
        resp.set_header(_VERSION_HEADER, _VERSION)
        body = {"code": code, "message": message}
    else:
        body = {"code": status, "error_code": code, "msg": message}
    if weak_password is not None:
        body["weak_password"] = weak_password
    resp.data = msgspec.json.encode(body)
