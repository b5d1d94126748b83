"""A request's bearer token → Claims, as PostgREST reads it.

The signature of a token is verified once; its times are compared at each request. RFC 7519.
https://docs.postgrest.org/en/stable/references/auth.html
"""

import base64
import binascii
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.api.rest.errors import InvalidClaimsError, UndecodableTokenError
from butterbase.api.rest.postgrest.errors import NoSecretError, TokenRequiredError
from butterbase.api.rest.postgrest.keys import Keys
from butterbase.api.rest.postgrest.role_path import RolePath
from butterbase.sql.claims import Claims

SKEW_S = 30
"""How far the issuer's clock may be off."""

TOKEN_BYTES_MAX = 65_536

NO_ROLE = "none"
"""`set role none` is back to the login role, which no caller may be. No role can have that name."""

Headers: TypeAlias = Mapping[bytes, bytes]
"""By lowercase name."""

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_NOT_AN_OBJECT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BASE64URL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class TokenSettings(Struct, frozen=True):
    keys: Keys | None
    """None: no token can be verified, so each is refused."""
    role_path: RolePath
    audience: str | None = None
    """None accepts every audience."""
    anon_role: str | None = None
    """The role without a token, and with one that names none; None refuses both."""
    cached_count_max: int = 1000


class _Verified(Struct, frozen=True):
    """A token whose signature is good."""

    payload: dict[str, Any]
    claims: Claims | None
    """None when a claim is wrong at any time; `_check` says which."""
    valid_from_s: float
    valid_until_s: float


class Authenticator:
    """Who a request speaks for."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        anon = settings.anon_role
        self._anonymous = None if anon is None else _claims({}, anon)
        self.lookup_count = 0
        self.hit_count = 0
        self.eviction_count = 0

    def authenticate(self, given: Headers, *, now_s: float) -> Claims:
        """The caller of a request with these headers. Raises RestError."""
        authorization = given.get(b"authorization")
        token = None if authorization is None else bearer_token(authorization)
        return self.verify(token, now_s=now_s)

    def verify(self, token: bytes | None, *, now_s: float) -> Claims:
        """Raises RestError."""
        if token is None:
            if self._anonymous is None:
                raise TokenRequiredError
            return self._anonymous
        if self._settings.keys is None:
            raise NoSecretError
        self.lookup_count += 1
        verified = self._cache.get(token)
        if verified is None:
            verified = self._verify(token, self._settings.keys)
            self._remember(token, verified)
        else:
            self.hit_count += 1
        now_s = math.floor(now_s)
        if verified.claims is None or not verified.valid_from_s <= now_s <= verified.valid_until_s:
            _check(verified.payload, self._settings.audience, now_s)
            raise TokenRequiredError  # nothing is wrong with it but that it names no role
        return verified.claims

    def _verify(self, token: bytes, keys: Keys) -> _Verified:
        payload = decode_token(token, keys)
        try:
            _check(payload, self._settings.audience, None)
        except InvalidClaimsError:
            return _Verified(payload, None, -math.inf, math.inf)
        role = self._settings.role_path.role_of(payload)
        if role == NO_ROLE:
            raise InvalidClaimsError("The JWT names none as its role, which is no role")
        role = self._settings.anon_role if role is None else role
        starts = [payload[c] for c in ("nbf", "iat") if payload.get(c) is not None]
        expires_at = payload.get("exp")
        return _Verified(
            payload,
            None if role is None else _claims(payload, role),
            max(starts, default=-math.inf) - SKEW_S,
            math.inf if expires_at is None else int(expires_at) + SKEW_S,
        )

    def _remember(self, token: bytes, verified: _Verified) -> None:
        if self._settings.cached_count_max <= 0:
            return
        self._cache[token] = verified
        if len(self._cache) > self._settings.cached_count_max:
            self._cache.popitem(last=False)
            self.eviction_count += 1


def bearer_token(authorization: bytes) -> bytes | None:
    """The token, empty when it is left out; None for another scheme, which is not ours to read."""
    scheme, _, rest = authorization.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else None


def decode_token(token: bytes, keys: Keys) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed. Raises RestError."""
    if not token:
        raise UndecodableTokenError("Empty JWT is sent in Authorization header")
    parts = token.split(b".")
    if len(parts) != 3:
        raise UndecodableTokenError(f"Expected 3 parts in JWT; got {len(parts)}")
    if len(token) > TOKEN_BYTES_MAX:
        raise _garbled()
    header = _decode_header(parts[0])
    if header.get("alg") == "none":
        raise UndecodableTokenError(
            "Wrong or unsupported encoding algorithm",
            details="JWT is unsecured but expected 'alg' was not 'none'",
        )
    payload, signature = _decode_base64url(parts[1]), _decode_base64url(parts[2])
    _verify_signature(header, parts[0] + b"." + parts[1], signature, keys)
    try:
        return _OBJECT.decode(payload)
    except _NOT_AN_OBJECT as error:
        raise InvalidClaimsError("Parsing claims failed") from error


def _verify_signature(header: dict[str, Any], signed: bytes, signature: bytes, keys: Keys) -> None:
    algorithm, key_id = header.get("alg"), header.get("kid")
    fitting = [k for k in keys if algorithm in k.algorithms and key_id in (None, k.id)]
    if not fitting:
        raise _no_key("No suitable key was found to decode the JWT")
    if not any(key.verifies(str(algorithm), signed, signature) for key in fitting):
        raise _no_key("None of the keys was able to decode the JWT")


def _decode_header(part: bytes) -> dict[str, Any]:
    try:
        header = _OBJECT.decode(_decode_base64url(part))
    except _NOT_AN_OBJECT as error:
        raise _garbled() from error
    # `crit` lists what must be understood, and nothing beyond RFC 7515 is understood here.
    if not isinstance(header.get("alg"), str) or "crit" in header:
        raise _garbled()
    return header


def _decode_base64url(part: bytes) -> bytes:
    # Python skips what is not of the alphabet, so that many texts would be one token.
    if not _BASE64URL.issuperset(part):
        raise _garbled()
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except (ValueError, binascii.Error) as error:
        raise _garbled() from error


def _garbled() -> UndecodableTokenError:
    return UndecodableTokenError("JWT cryptographic operation failed")


def _no_key(details: str) -> UndecodableTokenError:
    return UndecodableTokenError("No suitable key or wrong key type", details=details)


def _check(payload: dict[str, Any], audience: str | None, now_s: float | None) -> None:
    """Raises InvalidClaimsError for the first claim that does not hold; no time, no times."""
    for claim, message in (
        ("exp", "JWT expired"),
        ("nbf", "JWT not yet valid"),
        ("iat", "JWT issued at future"),
    ):
        at_s = payload.get(claim)
        if at_s is None:
            continue
        if isinstance(at_s, bool) or not isinstance(at_s, int | float):
            raise InvalidClaimsError(f"The JWT '{claim}' claim must be a number")
        if now_s is None:
            continue
        if (int(at_s) + SKEW_S < now_s) if claim == "exp" else (at_s - SKEW_S > now_s):
            raise InvalidClaimsError(message)
    _check_audience(payload.get("aud"), audience)


def _check_audience(claimed: Any, audience: str | None) -> None:
    named = [claimed] if isinstance(claimed, str) else claimed
    if named is None:
        return
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InvalidClaimsError("The JWT 'aud' claim must be a string or an array of strings")
    if audience is not None and named and audience not in named:
        raise InvalidClaimsError("JWT not in audience")


def _claims(payload: dict[str, Any], role: str) -> Claims:
    expires_at, subject = payload.get("exp"), payload.get("sub")
    return Claims(
        role=role,
        json=msgspec.json.encode({**payload, "role": role}).decode(),
        subject=subject if isinstance(subject, str) else None,
        expires_at=None if expires_at is None else int(expires_at),
    )
