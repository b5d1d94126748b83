"""Errors on their way out: class → status, and the JSON body every route answers with.

The body has PostgREST's four members, which supabase clients read:
`{"code", "message", "details", "hint"}`. https://docs.postgrest.org/en/stable/references/errors.html
"""

import logging
from typing import Any

import falcon
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.ai.body import BodyTooLargeError
from butterbase.ai.rag_errors import (
    CollectionNotFoundError,
    DocumentNotFoundError,
    RagRequestError,
)
from butterbase.api.errors import (
    MissingKeyError,
    NotFoundError,
    RequestError,
)
from butterbase.projections.embedder import EmbedderError
from butterbase.sql.claims import ANON, Claims
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
    nearest,
)
from butterbase.sql.filters import InvalidFilterError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

# Read along the MRO: the nearest class decides.
_STATUS: dict[type, int] = {
    RequestError: 400,
    InvalidFilterError: 400,
    InvalidTokenError: 401,
    MissingKeyError: 401,
    CollectionNotFoundError: 404,
    DocumentNotFoundError: 404,
    RagRequestError: 400,
    EmbedderError: 503,
    NotFoundError: 404,
    BodyTooLargeError: 413,
    DatabaseUnavailableError: 503,
    ButterbaseError: 500,
}

# SQLSTATE, whole or by its class, → status; the longest prefix decides. PostgREST's table.
_SQLSTATE_STATUS = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "25": 500,
    "25006": 405,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "42501": 403,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53": 503,
    "53400": 500,
    "54": 400,
    "55": 500,
    "57": 500,
    "57014": 504,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "P0001": 400,
    "XX": 500,
}


def add_handlers(app: "App[Any, Any]") -> None:
    """Every error an app can meet, from the unforeseen to our own."""
    app.add_error_handler(Exception, on_bug)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ButterbaseError, on_error)


class Problem(Struct, frozen=True):
    code: str
    message: str
    details: str | None = None
    hint: str | None = None


def status_of(error: ButterbaseError, *, role: str = ANON) -> int:
    """The HTTP status. What anon may not do is 401, since signing in may help."""
    if isinstance(error, DatabaseError):
        if error.sqlstate == "42501" and role == ANON:
            return 401
        return next(
            (
                _SQLSTATE_STATUS[prefix]
                for prefix in (error.sqlstate, error.sqlstate[:2])
                if prefix in _SQLSTATE_STATUS
            ),
            400,
        )
    return nearest(_STATUS, type(error))


def problem_of(error: ButterbaseError) -> Problem:
    if isinstance(error, DatabaseError):
        return Problem(error.sqlstate, error.message, error.detail, error.hint)
    return Problem(error.code, error.message, None, error.hint)


def respond(resp: Response, status: int, problem: Problem) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(problem)
    if status == 401:
        resp.set_header("WWW-Authenticate", "Bearer")
    if status == 503:
        resp.set_header("Retry-After", str(RETRY_AFTER_S))


async def on_error(
    req: Request, resp: Response, error: ButterbaseError, _params: dict[str, object]
) -> None:
    claims: Claims | None = getattr(req.context, "claims", None)
    status = status_of(error, role=claims.role if claims else ANON)
    if status >= 500:
        logger.warning("%s %s: %s (%s)", req.method, req.path, error, type(error).__name__)
    respond(resp, status, problem_of(error))


async def on_http_error(
    _req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, object]
) -> None:
    """Falcon's own refusals (no route, wrong method, …), in our shape."""
    code = "not_found" if error.status_code == 404 else f"http_{error.status_code}"
    respond(resp, error.status_code, Problem(code, error.title, error.description))
    resp.set_headers(error.headers or {})


async def on_bug(
    req: Request, resp: Response, error: Exception, _params: dict[str, object]
) -> None:
    """What nobody foresaw: logged whole, answered without details."""
    logger.error("%s %s failed", req.method, req.path, exc_info=error)
    respond(resp, 500, Problem("internal_error", "something went wrong on the server"))
