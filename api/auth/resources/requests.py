"""What the resources read of a request (its body, its app, whose it is), and how they answer."""

import uuid
from typing import TypeVar

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Struct

from butterbase.ai.http.body import decode_json, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import (
    AuthError,
    AuthForbiddenError,
    BadJwtError,
    InsufficientAalError,
    InvalidAuthBodyError,
    NotAdminError,
    SessionNotFoundError,
    UserBannedError,
)
from butterbase.api.auth.users import QUERIES, FoundUser, find_statement, found
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE, Claims
from butterbase.sql.pipeline import Check, Result, Statement

BODY_BYTES_MAX = 64 * 1024

T = TypeVar("T")

_METHODS = msgspec.json.Decoder(list[str])


class SignedIn(Struct, frozen=True):
    """The calling user, in a session that is there."""

    user: FoundUser
    session_id: str
    aal: str
    started_at_s: float
    methods: list[str]
    """How the user signed in, the latest first."""


async def read(req: Request, decoder: "msgspec.json.Decoder[T]") -> T:
    """The body. Raises InvalidAuthBodyError, BodyTooLargeError."""
    return decode_json(decoder, await body_of(req), InvalidAuthBodyError)


async def body_of(req: Request) -> bytes:
    """Raises BodyTooLargeError."""
    return await read_body(req, bytes_max=BODY_BYTES_MAX)


def app_of(req: Request) -> AppRuntime:
    app: AppRuntime = req.context.app
    return app


def ids_of(req: Request) -> tuple[str, str]:
    """The ids of the calling user and session. Raises AuthForbiddenError, BadJwtError."""
    claims: Claims = req.context.claims
    if claims.role != AUTHENTICATED or claims.subject is None or claims.session_id is None:
        raise AuthForbiddenError("this needs a user's access token")
    try:
        return str(uuid.UUID(claims.subject)), str(uuid.UUID(claims.session_id))
    except ValueError:
        raise BadJwtError("invalid claim: sub and session_id must be UUIDs") from None


async def signed_in(req: Request, caller: Caller) -> SignedIn:
    """The calling user. Raises what `ids_of` does, SessionNotFoundError, UserBannedError."""
    user_id, session_id = ids_of(req)
    (user_result, session_result) = await app_of(req).service.run(
        find_statement(user_id=user_id, now_s=caller.now_s),
        Statement.of(QUERIES["find_session"], session_id, user_id),
    )
    user = found(user_result)
    if user is None or session_result.row_count == 0:
        raise SessionNotFoundError
    if user.is_banned:
        raise UserBannedError
    aal, started_at, methods = (value or b"" for value in session_result.rows()[0])
    return SignedIn(user, session_id, aal.decode(), float(started_at), _METHODS.decode(methods))


def require_strong(who: SignedIn) -> None:
    """Raises InsufficientAalError when the session has not proved the user's second factor."""
    if who.user.has_verified_factor and who.aal != "aal2":
        raise InsufficientAalError("AAL2 session is required to do this when MFA is enabled")


def require_row(missing: type[AuthError]) -> Check:
    """Of the first statement; without it none of the others is kept."""

    def check(results: list[Result]) -> None:
        if results[0].row_count == 0:
            raise missing

    return check


def require_admin(req: Request) -> None:
    """Raises NotAdminError unless the service role calls."""
    claims: Claims = req.context.claims
    if claims.role != SERVICE_ROLE:
        raise NotAdminError


def lead(resp: Response, url: str, *, status: int = 302) -> None:
    """Redirect a browser."""
    resp.status = status
    resp.location = url
    resp.set_header("Cache-Control", "no-store")
    # The addresses of these requests hold what is nobody else's.
    resp.set_header("Referrer-Policy", "no-referrer")


def answer(resp: Response, body: bytes, *, status: int = 200) -> None:
    """JSON that no cache may keep: RFC 6749, section 5.1."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("Cache-Control", "no-store")
    resp.data = body
