"""Access tokens: sign, verify, remember what was verified. RFC 7519, RFC 8725.

A verified token is kept until it expires, in a bounded cache under its SHA-256, so that a process
dump of the cache holds no tokens.
"""

import hashlib
import math
from collections import OrderedDict
from typing import Any

import jwt
import msgspec
from msgspec import Struct

from butterbase.api.auth.keys import ALGORITHM, ISSUER, AppKeys
from butterbase.sql.claims import (
    ANON,
    AUTHENTICATED,
    REQUEST_ROLES,
    SERVICE_ROLE,
    Claims,
    claims_for_role,
)
from butterbase.sql.errors import InvalidTokenError

LEEWAY_S = 10
"""How far the clock of another token issuer may be off."""

TOKEN_BYTES_MAX = 16_384


class ExpiredTokenError(InvalidTokenError):
    """The token has expired."""

    code = "token_expired"


class TokenSubject(Struct, frozen=True):
    """The user an access token is issued to."""

    id: str
    email: str | None
    session_id: str
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]


class Tokens:
    """One app's tokens."""

    def __init__(self, keys: AppKeys, *, cached_count_max: int = 10_000) -> None:
        self._keys = keys
        self._cache: OrderedDict[bytes, Claims] = OrderedDict()
        self._cached_count_max = cached_count_max
        # Keys of the settings need not be JWTs; they are compared, not parsed.
        self._opaque = {
            hashlib.sha256(keys.anon.encode()).digest(): claims_for_role(ANON),
            hashlib.sha256(keys.service_role.encode()).digest(): claims_for_role(SERVICE_ROLE),
        }

    def verify(self, token: str, *, now_s: float) -> Claims:
        """Who the token speaks for. Raises InvalidTokenError, ExpiredTokenError."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        claims = self._cache.get(digest)
        if claims is None:
            claims = self._opaque.get(digest) or self._decode(token)
            self._remember(digest, claims)
        if claims.expires_at is not None and claims.expires_at + LEEWAY_S <= now_s:
            self._cache.pop(digest, None)
            raise ExpiredTokenError
        return claims

    def sign(self, subject: TokenSubject, *, now_s: int, life_s: int) -> str:
        """An access token with the claims that Supabase's clients and policies read."""
        claims = {
            "iss": ISSUER,
            "sub": subject.id,
            "aud": AUTHENTICATED,
            "role": AUTHENTICATED,
            "iat": now_s,
            "exp": now_s + life_s,
            "email": subject.email or "",
            "phone": "",
            "app_metadata": subject.app_metadata,
            "user_metadata": subject.user_metadata,
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now_s}],
            "session_id": subject.session_id,
            "is_anonymous": False,
        }
        return jwt.encode(claims, self._keys.jwt_secret, ALGORITHM)

    def _decode(self, token: str) -> Claims:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidTokenError("the token is too long")
        if not token.isascii():
            raise InvalidTokenError
        try:
            payload = jwt.decode(
                token,
                self._keys.jwt_secret,
                algorithms=[ALGORITHM],
                # `exp` is judged by the caller's clock; `aud` is not ours to prescribe for tokens
                # that the developer signs with the app's secret.
                options={"verify_exp": False, "verify_aud": False},
                leeway=LEEWAY_S,
            )
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(f"the token is not valid: {error}") from error
        return _claims(payload)

    def _remember(self, digest: bytes, claims: Claims) -> None:
        self._cache[digest] = claims
        if len(self._cache) > self._cached_count_max:
            self._cache.popitem(last=False)


def _claims(payload: dict[str, Any]) -> Claims:
    role = payload.get("role", ANON)
    if not isinstance(role, str) or role not in REQUEST_ROLES:
        raise InvalidTokenError("the token's role is none of anon, authenticated, service_role")
    expires_at, subject = payload.get("exp"), payload.get("sub")
    if expires_at is not None and not (
        isinstance(expires_at, int | float) and math.isfinite(expires_at)
    ):
        raise InvalidTokenError("the token's exp is not a number")
    session_id = payload.get("session_id")
    return Claims(
        role=role,
        json=msgspec.json.encode(payload).decode(),
        subject=subject if isinstance(subject, str) else None,
        expires_at=None if expires_at is None else int(expires_at),
        session_id=session_id if isinstance(session_id, str) else None,
    )
