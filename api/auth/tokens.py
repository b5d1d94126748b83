"""Access tokens: sign, verify, remember what was verified. RFC 7519, RFC 8725.

Ours are signed with ES256, or HS256 where the app asks for it. The key is chosen by what the key is
for, never by the token alone: ES256 needs the `kid` of a key pair of ours, HS256 the app's secret.
A verified token is kept until it expires, in a bounded cache under its SHA-256, so that a process
dump of the cache holds no tokens.
"""

import hashlib
import math
from collections import OrderedDict
from typing import Any, Literal

import jwt
import msgspec
from jwt.types import Options
from msgspec import Struct

from butterbase.api.auth.keys import ES256, HS256, AppKeys, SigningKey
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
"""How far the clock of another token issuer may be off: for `exp`, `nbf` and `iat`."""

TOKEN_BYTES_MAX = 16_384

SCOPES_CLAIM = "butterbase_scopes"
FUNCTION_CLAIM = "butterbase_function"
"""Of the tokens that functions are given: what for, and whose they are."""

EPOCHS_AHEAD_MAX = 32
"""So many rotations on demand may have happened that this process has not heard of."""


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
    phone: str = ""
    role: str = AUTHENTICATED
    aud: str = AUTHENTICATED
    aal: str = "aal1"
    amr: list[dict[str, Any]] = []
    is_anonymous: bool = False


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
        self._is_used = False
        self._key_epoch = 0
        self._base_generation = -1
        self._accepted: dict[str, SigningKey] = {}

    @property
    def key_epoch(self) -> int:
        """How many rotations on demand this process knows of.

        Whoever reads the app's settings sets it. A process that does not learns it from the tokens:
        one that is signed with a later key can only come from a process that has rotated.
        """
        return self._key_epoch

    @key_epoch.setter
    def key_epoch(self, epoch: int) -> None:
        if epoch > self._key_epoch:
            self._key_epoch = epoch
            self._base_generation = -1  # the keys that are accepted are to be found anew
            self._cache.clear()

    def take_use(self) -> bool:
        """Whether a token was verified since this was last asked."""
        is_used, self._is_used = self._is_used, False
        return is_used

    def verify(self, token: str, *, now_s: float, is_scoped_allowed: bool = False) -> Claims:
        """Who the token speaks for. One that is for some things only is for those who say that
        they look at its scopes.

        Raises InvalidTokenError, ExpiredTokenError.
        """
        self._is_used = True
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        claims = self._cache.get(digest)
        if claims is None:
            claims = self._opaque.get(digest) or self._decode(token, now_s)
            self._remember(digest, claims)
        if claims.expires_at is not None and claims.expires_at + LEEWAY_S <= now_s:
            self._cache.pop(digest, None)
            raise ExpiredTokenError
        if claims.scopes is not None and not is_scoped_allowed:
            raise InvalidTokenError("the token is not for this")
        return claims

    def sign(self, subject: TokenSubject, *, now_s: int, life_s: int) -> str:
        """An access token with the claims that Supabase's clients and policies read."""
        claims = self.claims_of(subject, issued_at_s=now_s, expires_at_s=now_s + life_s)
        return self.sign_claims(claims, now_s=now_s)

    def claims_of(
        self, subject: TokenSubject, *, issued_at_s: int, expires_at_s: int
    ) -> dict[str, Any]:
        return {
            "iss": self._keys.issuer,
            "sub": subject.id,
            "aud": subject.aud,
            "role": subject.role,
            "iat": issued_at_s,
            "exp": expires_at_s,
            "email": subject.email or "",
            "phone": subject.phone,
            "app_metadata": subject.app_metadata,
            "user_metadata": subject.user_metadata,
            "aal": subject.aal,
            "amr": subject.amr,
            "session_id": subject.session_id,
            "is_anonymous": subject.is_anonymous,
        }

    def sign_claims(
        self,
        claims: dict[str, Any],
        *,
        now_s: float,
        algorithm: Literal["ES256", "HS256"] = "ES256",
    ) -> str:
        # In UTF-8: as escapes, a user's own words could be too long for a header.
        payload = msgspec.json.encode(claims)
        if algorithm == HS256:
            return jwt.api_jws.encode(payload, self._keys.jwt_secret, HS256)
        key = self._keys.signing.key(self._generation(now_s))
        return jwt.api_jws.encode(payload, key.private, ES256, headers={"kid": key.kid})

    def jwks(self, *, now_s: float) -> list[dict[str, Any]]:
        """The public keys: of the last generation, the current and the next one."""
        current = self._generation(now_s)
        return [
            {**key.jwk, "kid": key.kid, "alg": ES256, "use": "sig", "key_ops": ["verify"]}
            for key in map(self._keys.signing.key, range(max(0, current - 1), current + 2))
        ]

    def _generation(self, now_s: float) -> int:
        return self._keys.signing.generation_at(now_s) + self._key_epoch

    def _decode(self, token: str, now_s: float) -> Claims:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidTokenError("the token is too long")
        if not token.isascii():
            raise InvalidTokenError
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") == ES256:
                payload = self._decode_es256(token, header.get("kid"), now_s)
            else:
                # The app's secret signs what the developer likes, so neither `aud` nor `iss` is
                # ours to prescribe.
                payload = jwt.decode(
                    token, self._keys.jwt_secret, algorithms=[HS256], options=_OUR_CLOCK
                )
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(f"the token is not valid: {error}") from error
        _check_times(payload, now_s)
        return _claims(payload)

    def _decode_es256(self, token: str, kid: object, now_s: float) -> dict[str, Any]:
        key = self._key_of(kid, now_s)
        if key is None:
            raise InvalidTokenError("the token's key is none of this app's, or has been retired")
        payload: dict[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=[ES256],
            audience=AUTHENTICATED,
            issuer=self._keys.issuer,
            options={**_OUR_CLOCK, "verify_aud": True, "require": ["exp", "iat", "sub"]},
        )
        # A key from beyond the next one: this process has not heard of the last rotations.
        self.key_epoch = key.generation - 1 - self._base_generation
        return payload

    def _key_of(self, kid: object, now_s: float) -> SigningKey | None:
        signing = self._keys.signing
        base = signing.generation_at(now_s)
        if base != self._base_generation:
            self._base_generation = base
            current = base + self._key_epoch
            accepted = map(signing.key, range(max(0, current - 1), current + 2 + EPOCHS_AHEAD_MAX))
            self._accepted = {key.kid: key for key in accepted}
        return self._accepted.get(kid) if isinstance(kid, str) else None

    def _remember(self, digest: bytes, claims: Claims) -> None:
        self._cache[digest] = claims
        if len(self._cache) > self._cached_count_max:
            self._cache.popitem(last=False)


# The times are judged by the caller's clock.
_OUR_CLOCK: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
}


def _check_times(payload: dict[str, Any], now_s: float) -> None:
    for name in ("exp", "nbf", "iat"):
        value = payload.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value)):
            raise InvalidTokenError(f"the token's {name} is not a number")
        if name != "exp" and value > now_s + LEEWAY_S:
            raise InvalidTokenError(f"the token is not valid yet ({name})")


def _claims(payload: dict[str, Any]) -> Claims:
    role = payload.get("role", ANON)
    if not isinstance(role, str) or role not in REQUEST_ROLES:
        raise InvalidTokenError("the token's role is none of anon, authenticated, service_role")
    expires_at, subject = payload.get("exp"), payload.get("sub")
    session_id = payload.get("session_id")
    scopes, function = payload.get(SCOPES_CLAIM), payload.get(FUNCTION_CLAIM)
    if scopes is not None and not _is_texts(scopes):
        raise InvalidTokenError("the token's scopes are none")
    try:
        text = msgspec.json.encode(payload).decode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InvalidTokenError("the token has characters that are none") from error
    return Claims(
        role=role,
        json=text,
        subject=subject if isinstance(subject, str) else None,
        expires_at=None if expires_at is None else int(expires_at),
        session_id=session_id if isinstance(session_id, str) else None,
        scopes=None if scopes is None else frozenset(scopes),
        function=function if isinstance(function, str) else None,
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
