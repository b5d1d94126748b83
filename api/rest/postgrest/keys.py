"""`jwt-secret` → keys that verify tokens: a text, a JSON Web Key, or a set of them. Pure.

A key verifies the algorithms of its own type and no others, so that a public RSA key can never be
taken for an HMAC secret, and `none` is an algorithm of no key.
https://www.rfc-editor.org/rfc/rfc7517, https://www.rfc-editor.org/rfc/rfc8725
"""

import base64
import binascii
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms
from msgspec import Struct

from butterbase.sql.errors import SettingError

SECRET_BYTES_MIN = 32

_ALGORITHMS = get_default_algorithms()
_OF_TYPE = {
    "oct": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "OKP": ("EdDSA",),
}
_OF_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
_OF_PEM_CURVE = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


class Key(Struct, frozen=True):
    algorithms: tuple[str, ...]
    """What it verifies; empty for a key of a type that is not known, or one for encryption."""
    key: Any
    """As PyJWT's algorithm takes it."""
    id: str | None = None

    def __repr__(self) -> str:
        return f"Key({self.algorithms}, …, {self.id!r})"

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key made the signature; the algorithm is one of `algorithms`."""
        assert algorithm in self.algorithms
        # PyJWT's methods of ECDSA and RSA answer False; a malformed signature may raise.
        try:
            return bool(_ALGORITHMS[algorithm].verify(signed, self.key, signature))
        except (ValueError, jwt.PyJWTError):
            return False


Keys = tuple[Key, ...]


def read_keys(secret: bytes) -> Keys:
    """Raises SettingError for a key that cannot be read and a text that is too short."""
    try:
        found = msgspec.json.decode(secret)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("keys"), list):
        return tuple(_read_jwk(jwk) for jwk in found["keys"])
    if isinstance(found, dict) and "kty" in found:
        return (_read_jwk(found),)
    if secret.lstrip().startswith(b"-----BEGIN"):
        return (_read_pem(secret),)
    _check_length(secret)
    return (Key(("HS256",), secret),)


def decode_base64(text: str) -> bytes:
    """Base64 in either alphabet, padded or not. Raises SettingError."""
    standard = text.strip().replace("-", "+").replace("_", "/").replace(".", "=").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise SettingError(
            "jwt-secret is not base64",
            hint="set jwt-secret-is-base64 to false for a secret that is text",
        ) from error


def _check_length(secret: bytes) -> None:
    if len(secret) < SECRET_BYTES_MIN:
        raise SettingError("The JWT secret must be at least 32 characters long.")


def _read_pem(pem: bytes) -> Key:
    """Taken as text it would be an HMAC secret that everyone knows."""
    try:
        key = load_pem_public_key(pem.strip())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingError(
            f"jwt-secret: a PEM that is no public key: {error}",
            hint="use the public key, as PEM or as a JSON Web Key",
        ) from error
    match key:
        case RSAPublicKey():
            algorithms: tuple[str, ...] | None = _OF_TYPE["RSA"]
        case EllipticCurvePublicKey():
            algorithms = _OF_PEM_CURVE.get(key.curve.name)
        case _:
            algorithms = None
    if algorithms is None:
        raise SettingError("jwt-secret: a PEM must be a public key of RSA, P-256, P-384 or P-521")
    return Key(algorithms, key)


def _read_jwk(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise SettingError("jwt-secret: a JSON Web Key must be an object")
    identity = jwk.get("kid")
    algorithms = _algorithms(jwk)
    if not algorithms:
        return Key((), None, identity)
    try:
        key = _ALGORITHMS[algorithms[0]].from_jwk(jwk)
    except (KeyError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise SettingError(f"jwt-secret: a JSON Web Key cannot be read: {error}") from error
    if isinstance(key, bytes):
        _check_length(key)
    if hasattr(key, "public_key"):  # the set holds a private key, which is more than is needed
        key = key.public_key()
    return Key(algorithms, key, identity)


def _algorithms(jwk: dict[str, Any]) -> tuple[str, ...]:
    if jwk.get("use") not in (None, "sig"):
        return ()
    kind = str(jwk.get("kty"))
    known = _OF_CURVE.get(str(jwk.get("crv")), ()) if kind == "EC" else _OF_TYPE.get(kind, ())
    named = jwk.get("alg")
    return known if named is None else tuple(name for name in known if name == named)
