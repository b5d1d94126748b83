"""`/auth/v1`: sign up, sign in, refresh, who am I, sign out, on the wire of Supabase's clients.

Errors carry `error_code` and `msg`, and with `X-Supabase-Api-Version: 2024-01-01` `code` and
`message`, which is what the clients of each age read.
"""

import hashlib
import re
import secrets
import time
import uuid
from typing import Any, Literal, TypeVar

import falcon
import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.ai.body import decode_json, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.auth.errors import (
    AuthForbiddenError,
    EmailInvalidError,
    InvalidAuthBodyError,
    InvalidCredentialsError,
    RefreshTokenError,
    SessionNotFoundError,
    UnsupportedGrantError,
    UserExistsError,
    WeakPasswordError,
)
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.tokens import TokenSubject
from butterbase.api.settings import ApiSettings
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import AUTHENTICATED, Claims
from butterbase.sql.pipeline import Statement

QUERIES = load_queries("auth")

PASSWORD_LENGTH_MIN = 6
PASSWORD_BYTES_MAX = 1024
BODY_BYTES_MAX = 64 * 1024
DATA_BYTES_MAX = 4096
"""Of a user's own data: every access token carries it, and must fit into a header."""

_EMAIL = re.compile(r"[^@\s\0]{1,64}@[^@\s\0]{1,190}\.[^@\s\0.]{1,63}")


class Credentials(Struct, frozen=True):
    email: str
    password: str
    data: dict[str, Any] = {}


class RefreshToken(Struct, frozen=True):
    refresh_token: str


class User(Struct, frozen=True):
    """What a token needs of the user; the rest of its JSON is passed on."""

    id: str
    email: str | None
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]


class Session(Struct, frozen=True):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    expires_at: int
    refresh_token: str
    user: msgspec.Raw


_Body = TypeVar("_Body")

_CREDENTIALS = msgspec.json.Decoder(Credentials)
_REFRESH = msgspec.json.Decoder(RefreshToken)
_USER = msgspec.json.Decoder(User)


def add_routes(
    app: "App[Any, Any]", prefix: str, settings: ApiSettings, passwords: Passwords
) -> None:
    expiry_s = settings.jwt_expiry_s
    app.add_route(f"{prefix}/auth/v1/signup", SignupResource(passwords, expiry_s=expiry_s))
    app.add_route(f"{prefix}/auth/v1/token", TokenResource(passwords, expiry_s=expiry_s))
    app.add_route(f"{prefix}/auth/v1/user", UserResource())
    app.add_route(f"{prefix}/auth/v1/logout", LogoutResource())


class SignupResource:
    def __init__(self, passwords: Passwords, *, expiry_s: int) -> None:
        self._passwords = passwords
        self._expiry_s = expiry_s

    async def on_post(self, req: Request, resp: Response) -> None:
        asked = await _read(req, _CREDENTIALS)
        email = check_email(asked.email)
        check_password(asked.password)
        data = msgspec.json.encode(asked.data)
        if len(data) > DATA_BYTES_MAX:
            raise InvalidAuthBodyError(f"data takes more than {DATA_BYTES_MAX} bytes")
        hashed = await self._passwords.hash(asked.password)
        session_id, refresh_token = str(uuid.uuid4()), _new_token()
        (result,) = await _app(req).service.run(
            Statement(
                QUERIES["create_user"],
                (
                    str(uuid.uuid4()).encode(),
                    email.encode(),
                    hashed.encode(),
                    data,
                    session_id.encode(),
                    _hash(refresh_token),
                ),
            )
        )
        if result.row_count == 0:
            raise UserExistsError
        _answer(req, resp, result.value(), session_id, refresh_token, self._expiry_s)


class TokenResource:
    """`/token?grant_type=password|refresh_token`."""

    def __init__(self, passwords: Passwords, *, expiry_s: int) -> None:
        self._passwords = passwords
        self._expiry_s = expiry_s

    async def on_post(self, req: Request, resp: Response) -> None:
        grant = req.get_param("grant_type", default="")
        if grant == "password":
            await self._sign_in(req, resp)
        elif grant == "refresh_token":
            await self._refresh(req, resp)
        else:
            raise UnsupportedGrantError(f"grant_type {grant!r} is not known")

    async def _sign_in(self, req: Request, resp: Response) -> None:
        asked = await _read(req, _CREDENTIALS)
        service = _app(req).service
        email = asked.email.strip().encode()
        if b"\0" in email or len(asked.password) > PASSWORD_BYTES_MAX:
            raise InvalidCredentialsError
        (found,) = await service.run(Statement(QUERIES["find_password"], (email,)))
        user_id, stored = found.rows()[0] if found.row_count else (None, None)
        hashed = None if stored is None else stored.decode()
        if not await self._passwords.verify(hashed, asked.password) or hashed is None:
            raise InvalidCredentialsError
        renewed = None
        if self._passwords.is_outdated(hashed):
            renewed = (await self._passwords.hash(asked.password)).encode()
        session_id, refresh_token = str(uuid.uuid4()), _new_token()
        (result,) = await service.run(
            Statement(
                QUERIES["start_session"],
                (user_id, session_id.encode(), _hash(refresh_token), renewed),
            )
        )
        if result.row_count == 0:
            raise InvalidCredentialsError
        _answer(req, resp, result.value(), session_id, refresh_token, self._expiry_s)

    async def _refresh(self, req: Request, resp: Response) -> None:
        asked = await _read(req, _REFRESH)
        refresh_token = _new_token()
        (result,) = await _app(req).service.run(
            Statement(
                QUERIES["refresh_session"], (_hash(asked.refresh_token), _hash(refresh_token))
            )
        )
        if result.row_count == 0:
            raise RefreshTokenError
        user, session_id = result.rows()[0]
        assert session_id is not None
        _answer(req, resp, user, session_id.decode(), refresh_token, self._expiry_s)


class UserResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        user_id, session_id = _signed_in(req)
        (result,) = await _app(req).service.run(
            Statement(QUERIES["get_user"], (user_id, session_id))
        )
        if result.row_count == 0:
            raise SessionNotFoundError
        resp.content_type = falcon.MEDIA_JSON
        resp.data = result.value()


class LogoutResource:
    async def on_post(self, req: Request, resp: Response) -> None:
        user_id, session_id = _signed_in(req)
        scope = req.get_param("scope", default="global")
        if scope not in ("global", "local", "others"):
            raise InvalidAuthBodyError(f"scope {scope!r} is none of global, local, others")
        await _app(req).service.run(
            Statement(QUERIES["end_sessions"], (user_id, session_id, scope.encode()))
        )
        resp.status = 204


def check_email(email: str) -> str:
    """The address, without surrounding space. Raises EmailInvalidError."""
    email = email.strip()
    if not _EMAIL.fullmatch(email):
        raise EmailInvalidError(f"{email[:100]!r} is not an e-mail address")
    return email


def check_password(password: str) -> None:
    """Raises WeakPasswordError."""
    if len(password) < PASSWORD_LENGTH_MIN:
        raise WeakPasswordError(f"a password has at least {PASSWORD_LENGTH_MIN} characters")
    if len(password.encode("utf-8", "replace")) > PASSWORD_BYTES_MAX:
        raise WeakPasswordError(f"a password has at most {PASSWORD_BYTES_MAX} bytes")


def _answer(
    req: Request,
    resp: Response,
    user_json: bytes | None,
    session_id: str,
    refresh_token: str,
    expiry_s: int,
) -> None:
    assert user_json is not None
    user = _USER.decode(user_json)
    now_s = int(time.time())
    subject = TokenSubject(user.id, user.email, session_id, user.app_metadata, user.user_metadata)
    session = Session(
        access_token=_app(req).tokens.sign(subject, now_s=now_s, life_s=expiry_s),
        token_type="bearer",  # noqa: S106  a kind of token, not a secret (RFC 6750)
        expires_in=expiry_s,
        expires_at=now_s + expiry_s,
        refresh_token=refresh_token,
        user=msgspec.Raw(user_json),
    )
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(session)


async def _read(req: Request, decoder: "msgspec.json.Decoder[_Body]") -> _Body:
    body = await read_body(req, bytes_max=BODY_BYTES_MAX)
    return decode_json(decoder, body, InvalidAuthBodyError)


def _app(req: Request) -> AppRuntime:
    app: AppRuntime = req.context.app
    return app


def _signed_in(req: Request) -> tuple[bytes, bytes]:
    """The ids of the calling user and session. Raises AuthForbiddenError."""
    claims: Claims = req.context.claims
    if claims.role != AUTHENTICATED or claims.subject is None or claims.session_id is None:
        raise AuthForbiddenError("this needs a user's access token")
    return claims.subject.encode(), claims.session_id.encode()


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    """The token's SHA-256 in bytea's text format; a random token needs no slow hash."""
    return b"\\x" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest().encode()
