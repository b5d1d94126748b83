"""Errors on their way out: class → status, and the JSON body every route answers with.

The body has PostgREST's four members, which supabase clients read:
`{"code", "message", "details", "hint"}`. https://docs.postgrest.org/en/stable/references/errors.html
"""

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import falcon
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.ai.documents.errors import (
    DocumentError,
    DocumentTooLargeError,
    DocumentTypeUnsupportedError,
    FetchFailedError,
    ParserError,
)
from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.rag.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DocumentNotFoundError,
    DocumentNotParsedError,
    IndexExistsError,
    IndexNotFoundError,
    NothingToIngestError,
    RagRequestError,
    StorageObjectError,
)
from butterbase.api.errors import (
    BodiesFullError,
    HeadTooLargeError,
    MetricsRefusedError,
    MissingKeyError,
    NotFoundError,
    ReceiveTimeoutError,
    RequestError,
)
from butterbase.api.functions.errors import (
    BundlerError,
    FunctionAdminRequiredError,
    FunctionGrantError,
    FunctionSyntaxError,
    FunctionTooLargeError,
    InvocationNotRetryableError,
)
from butterbase.api.functions.runtime.errors import STATUS as FUNCTION_STATUS
from butterbase.api.functions.runtime.wire import RelayedError
from butterbase.api.keys.errors import InsufficientScopeError, KeyAdminRequiredError
from butterbase.api.operators.errors import OperatorFactorError
from butterbase.api.rest.errors import RestError
from butterbase.api.rest.raised import raised_error
from butterbase.projections.embedder import EmbedderError
from butterbase.sql.claims import ANON, Claims
from butterbase.sql.errors import (
    AcquisitionTimeoutError,
    ButterbaseError,
    DatabaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
    SpoolFullError,
    nearest,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

Header: TypeAlias = tuple[bytes, bytes]
"""As in ASGI."""

# Read along the MRO: the nearest class decides.
_STATUS: dict[type, int] = {
    RequestError: 400,
    ReceiveTimeoutError: 408,
    HeadTooLargeError: 431,
    BodiesFullError: 503,
    InvalidTokenError: 401,
    MissingKeyError: 401,
    InsufficientScopeError: 403,
    KeyAdminRequiredError: 403,
    MetricsRefusedError: 403,
    OperatorFactorError: 403,
    CollectionNotFoundError: 404,
    DocumentNotFoundError: 404,
    IndexNotFoundError: 404,
    IndexExistsError: 409,
    RagRequestError: 400,
    StorageObjectError: 400,
    CollectionExistsError: 409,
    DocumentNotParsedError: 409,
    NothingToIngestError: 409,
    DocumentError: 400,
    DocumentTooLargeError: 413,
    DocumentTypeUnsupportedError: 415,
    ParserError: 503,
    FetchFailedError: 502,
    EmbedderError: 503,
    NotFoundError: 404,
    BodyTooLargeError: 413,
    DatabaseUnavailableError: 503,
    AcquisitionTimeoutError: 504,
    SpoolFullError: 503,
    FunctionTooLargeError: 413,
    FunctionAdminRequiredError: 403,
    FunctionGrantError: 403,
    InvocationNotRetryableError: 409,
    BundlerError: 503,
    ButterbaseError: 500,
    **FUNCTION_STATUS,
}

# SQLSTATE, whole or by its class, → status; the longest prefix decides. PostgREST's table.
_SQLSTATE_STATUS = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "21": 500,
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
    "54": 500,
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
    details: object = None
    """Text, or a list of objects."""
    hint: str | None = None


class Rendered(Struct, frozen=True):
    """An error as an answer."""

    status: int
    headers: list[Header]
    problem: Problem


def render(error: Exception, *, is_anonymous: bool = True) -> Rendered:
    """Pure. What nobody foresaw is told without details."""
    if isinstance(error, DatabaseError):
        error = raised_error(error) or error
    if isinstance(error, ButterbaseError):
        status = status_of(error, is_anonymous=is_anonymous)
        problem = problem_of(error)
    else:
        status, problem = 500, BUG
    headers: list[Header] = list(error.headers) if isinstance(error, RestError) else []
    return Rendered(status, headers + _headers_of(status, headers), problem)


BUG = Problem("internal_error", "something went wrong on the server")


def status_of(error: ButterbaseError, *, is_anonymous: bool = True) -> int:
    """The HTTP status. What anon may not do is 401, since signing in may help."""
    if isinstance(error, DatabaseError):
        return _status_of_sqlstate(error, is_anonymous=is_anonymous)
    if isinstance(error, RestError | RelayedError):
        return error.status
    return nearest(_STATUS, type(error))


def _status_of_sqlstate(error: DatabaseError, *, is_anonymous: bool) -> int:
    match error.sqlstate, error.message:
        case "42501", _ if is_anonymous:
            return 401
        case "21000", message if message.endswith("requires a WHERE clause"):  # pg-safeupdate
            return 400
        case "22023", message if message.startswith("role") and message.endswith("not exist"):
            return 401
        case "42883", message if message.startswith("function xmlagg("):
            return 406
        case sqlstate, _:
            return _SQLSTATE_STATUS.get(sqlstate) or _SQLSTATE_STATUS.get(sqlstate[:2], 400)


def problem_of(error: ButterbaseError) -> Problem:
    if isinstance(error, DatabaseError):
        return Problem(error.sqlstate, error.message, error.detail, error.hint)
    details = error.details if isinstance(error, RestError | FunctionSyntaxError) else None
    return Problem(error.code, error.public_message, details, error.hint)


def _headers_of(status: int, given: Sequence[Header]) -> list[Header]:
    names = {name for name, _ in given}
    if status == 401 and b"www-authenticate" not in names:
        return [(b"www-authenticate", b"Bearer")]
    if status == 503:
        return [(b"retry-after", b"%d" % RETRY_AFTER_S)]
    return []


def respond(resp: Response, rendered: Rendered) -> None:
    resp.status = rendered.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(rendered.problem)
    for name, value in rendered.headers:
        resp.append_header(name.decode(), value.decode("latin-1"))


async def on_error(
    req: Request, resp: Response, error: ButterbaseError, _params: dict[str, object]
) -> None:
    claims: Claims | None = getattr(req.context, "claims", None)
    rendered = render(error, is_anonymous=claims is None or claims.role == ANON)
    if rendered.status >= 500:
        logger.warning("%s %s: %s (%s)", req.method, req.path, error, type(error).__name__)
    respond(resp, rendered)


async def on_http_error(
    _req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, object]
) -> None:
    """Falcon's own refusals (no route, wrong method, …), in our shape."""
    code = "not_found" if error.status_code == 404 else f"http_{error.status_code}"
    problem = Problem(code, error.title, error.description)
    respond(resp, Rendered(error.status_code, _headers_of(error.status_code, ()), problem))
    resp.set_headers(error.headers or {})


async def on_bug(
    req: Request, resp: Response, error: Exception, _params: dict[str, object]
) -> None:
    """What nobody foresaw: logged whole, answered without details."""
    logger.error("%s %s failed", req.method, req.path, exc_info=error)
    respond(resp, render(error))
