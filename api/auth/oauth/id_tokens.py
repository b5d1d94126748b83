"""Verifying an id_token. Pure: keys and time are given. OpenID Connect Core 1.0, section 3.1.3.7.

The algorithm is one of the asymmetric ones, and the one that its key is for; never one that the
token alone has chosen (RFC 8725, section 3.1).
"""

import base64
import hashlib
import hmac
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import jwt
from msgspec import Struct

from butterbase.api.auth.oauth.errors import BadIdTokenError, NonceMismatchError, OAuthError

LEEWAY_S: Final = 60
"""How far the provider's clock may be off ours."""

TOKEN_BYTES_MAX: Final = 16_384
RSA_BITS_MIN: Final = 2048

# Of each algorithm, what its key is: kty, and crv where it matters.
ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


class Header(Struct, frozen=True):
    algorithm: str
    key_id: str | None


def read_header(token: str) -> Header:
    """What it says of its key, unproven. Raises BadIdTokenError."""
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise BadIdTokenError
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise BadIdTokenError from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadIdTokenError("Bad ID token: its algorithm is not accepted")
    if not (key_id is None or isinstance(key_id, str)):
        raise BadIdTokenError
    return Header(algorithm, key_id)


def find_key(header: Header, keys: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The key, of a JWK set, that the token says it was signed with."""
    fitting = [key for key in keys if _fits(header.algorithm, key)]
    if header.key_id is not None:
        named = [key for key in fitting if key.get("kid") == header.key_id]
        return named[0] if named else None
    return fitting[0] if len(fitting) == 1 else None


def claims_of(token: str, header: Header, key: Mapping[str, Any]) -> dict[str, Any]:
    """What is said under the key's signature. Raises BadIdTokenError."""
    try:
        public = jwt.PyJWK(dict(key), algorithm=header.algorithm).key
        if getattr(public, "key_size", RSA_BITS_MIN) < RSA_BITS_MIN and key.get("kty") == "RSA":
            raise BadIdTokenError("Bad ID token: its key is too short")
        claims: dict[str, Any] = jwt.decode(
            token,
            public,
            algorithms=[header.algorithm],
            # Judged by the caller's clock, and by `check`.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise BadIdTokenError from error
    return claims


def check(
    claims: Mapping[str, Any],
    *,
    issuers: Collection[str],
    client_ids: Collection[str],
    now_s: float,
) -> None:
    """Who says it, to whom, and when. Raises BadIdTokenError, OAuthError for another's token."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in {
        _of_tenant(accepted, claims) for accepted in issuers
    }:
        raise BadIdTokenError("Bad ID token: it is of another issuer")
    _check_audience(claims, client_ids)
    expires_at, issued_at = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires_at is None or issued_at is None or expires_at + LEEWAY_S <= now_s:
        raise BadIdTokenError("Bad ID token: it has expired")
    if max(issued_at, _seconds(claims, "nbf") or issued_at) - LEEWAY_S > now_s:
        raise BadIdTokenError("Bad ID token: it is not valid yet")


def check_nonce(claims: Mapping[str, Any], nonce: str) -> None:
    """Of a flow of ours. Raises NonceMismatchError."""
    told = claims.get("nonce")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), nonce.encode()):
        raise NonceMismatchError


def check_hashed_nonce(claims: Mapping[str, Any], nonce: str | None) -> None:
    """Of a client's own flow: the token has the SHA-256, in hex, of what the client tells us.

    Raises OAuthError when one has a nonce and the other has not, and NonceMismatchError.
    """
    told = claims.get("nonce")
    if bool(told) != bool(nonce):
        raise OAuthError("Passed nonce and nonce in id_token should either both exist or not.")
    if nonce:
        check_nonce(claims, hashlib.sha256(nonce.encode("utf-8", "replace")).hexdigest())


def check_access_token(claims: Mapping[str, Any], header: Header, access_token: str) -> None:
    """Where the id_token tells, that both were issued together. Raises BadIdTokenError."""
    told = claims.get("at_hash")
    if told is None:
        return
    bits = {"256": hashlib.sha256, "384": hashlib.sha384}.get(header.algorithm[-3:], hashlib.sha512)
    digest = bits(access_token.encode("utf-8", "replace")).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), half.encode()):
        raise BadIdTokenError("Bad ID token: the access token is not its own")


def _check_audience(claims: Mapping[str, Any], client_ids: Collection[str]) -> None:
    told = claims.get("aud")
    audience = [told] if isinstance(told, str) else told
    if not isinstance(audience, list) or not any(one in client_ids for one in audience):
        raise OAuthError(f"Unacceptable audience in id_token: {ascii(audience)[:200]}")
    # Several may use it then: that it was issued to us is what counts.
    if len(audience) > 1 and claims.get("azp") not in client_ids:
        raise OAuthError(f"Unacceptable audience in id_token: {ascii(audience)[:200]}")


def _of_tenant(issuer: str, claims: Mapping[str, Any]) -> str:
    """Azure's issuer of all tenants is a template."""
    tenant = claims.get("tid")
    if "{tenantid}" not in issuer or not isinstance(tenant, str) or "/" in tenant:
        return issuer
    return issuer.replace("{tenantid}", tenant)


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _fits(algorithm: str, key: Mapping[str, Any]) -> bool:
    kind, curve = ALGORITHMS[algorithm]
    return (
        key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
    )
