"""An app's keys: those that sign its tokens, and the two that clients are given.

All are derived from the master key, so every process has the same ones without asking anybody.
Access tokens are signed with ES256 by a key pair of a generation: each rules for a period, and the
one before and the one to come are valid beside it. RFC 7517, RFC 7518, RFC 7638.
"""

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import cached_property

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from butterbase.sql.claims import ANON, SERVICE_ROLE
from butterbase.sql.secrets import MasterKey

HS256 = "HS256"
ES256 = "ES256"
ISSUER = "butterbase"
"""Of the two keys, and of an app that has no URL."""

ROTATION_S = 90 * 24 * 3600

_LIFE_S = 10 * 365 * 24 * 3600
_CURVE = ec.SECP256R1()
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_COORDINATE_BYTES = 32
_SEED_BYTES = 48  # 128 bits more than the order has, so that the remainder has no bias


class SigningKey:
    """A key pair of one generation."""

    def __init__(self, generation: int, seed: bytes) -> None:
        self.generation = generation
        scalar = int.from_bytes(seed, "big") % (_ORDER - 1) + 1
        self.private = ec.derive_private_key(scalar, _CURVE)
        self.public = self.private.public_key()

    @cached_property
    def kid(self) -> str:
        """The thumbprint of the public key."""
        members = {name: self.jwk[name] for name in ("crv", "kty", "x", "y")}
        return _base64url(hashlib.sha256(msgspec.json.encode(members)).digest())

    @cached_property
    def jwk(self) -> dict[str, str]:
        """The public key, without what says how it is used."""
        point = self.public.public_numbers()
        return {
            "crv": "P-256",
            "kty": "EC",
            "x": _base64url(point.x.to_bytes(_COORDINATE_BYTES, "big")),
            "y": _base64url(point.y.to_bytes(_COORDINATE_BYTES, "big")),
        }


class SigningKeys:
    """An app's generations of key pairs, each made when it is first asked for."""

    def __init__(
        self, seed: Callable[[int], bytes], *, created_at_s: float, rotation_s: float = ROTATION_S
    ) -> None:
        self._seed = seed
        self._created_at_s = created_at_s
        self._rotation_s = rotation_s
        self._made: dict[int, SigningKey] = {}

    def generation_at(self, now_s: float) -> int:
        """The one whose period it is, before any rotation on demand."""
        return max(0, int((now_s - self._created_at_s) // self._rotation_s))

    def key(self, generation: int) -> SigningKey:
        made = self._made.get(generation)
        if made is None:
            made = self._made[generation] = SigningKey(generation, self._seed(generation))
        return made


class AppKeys(Struct, frozen=True):
    """`anon` may be public; the others must not be."""

    jwt_secret: str
    anon: str
    service_role: str
    signing: SigningKeys
    issuer: str = ISSUER
    """`iss` of access tokens: the URL of the app's auth."""


def app_keys(
    master_key: MasterKey,
    app_id: str,
    created_at: datetime,
    *,
    issuer: str = ISSUER,
    jwt_secret: str | None = None,
    anon: str | None = None,
    service_role: str | None = None,
) -> AppKeys:
    """The keys of an app: given ones as they are, the others derived, the same at each start."""
    secret = jwt_secret or master_key.derive(f"jwt:{app_id}")

    def seed(generation: int) -> bytes:
        return master_key.derive_bytes(f"es256:{app_id}:{generation}", length=_SEED_BYTES)

    return AppKeys(
        secret,
        anon or _key(ANON, secret, app_id, created_at),
        service_role or _key(SERVICE_ROLE, secret, app_id, created_at),
        SigningKeys(seed, created_at_s=created_at.timestamp()),
        issuer,
    )


def _key(role: str, secret: str, app_id: str, created_at: datetime) -> str:
    issued_at = int(created_at.timestamp())
    claims = {
        "iss": ISSUER,
        "ref": app_id,
        "role": role,
        "iat": issued_at,
        "exp": issued_at + _LIFE_S,
    }
    return jwt.encode(claims, secret, HS256)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
