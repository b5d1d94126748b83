"""Codes that a client exchanges for a session, and its half of PKCE. Pure. RFC 7636.

A code comes to the client in an address, where others may see it; it is worth something only
together with the verifier, which never left the client. Kept is its SHA-256, and it is good once.
"""

import base64
import hashlib
import re
import secrets
from typing import Final

from msgspec import Struct

from butterbase.api.auth.errors import InvalidAuthBodyError

LIFE_S: Final = 300
"""Of a code; the client exchanges it as soon as it is loaded."""

VERIFIER_LENGTH_MAX: Final = 128

_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_METHODS = ("s256", "plain")


class Challenge(Struct, frozen=True):
    """What the client has shown of its verifier."""

    text: str
    method: str
    """s256 or plain."""


def read_challenge(text: str | None, method: str | None) -> Challenge | None:
    """As a client sends it, both or neither. Raises InvalidAuthBodyError."""
    if not text and not method:
        return None
    if not text or not method:
        raise InvalidAuthBodyError("PKCE flow requires code_challenge_method and code_challenge")
    if not 43 <= len(text) <= 128:
        raise InvalidAuthBodyError("code challenge has to be between 43 and 128 characters")
    if not _CHALLENGE.fullmatch(text):
        raise InvalidAuthBodyError(
            "code challenge can only contain alphanumeric characters, hyphens, periods, underscores"
            " and tildes"
        )
    if method.lower() not in _METHODS:
        raise InvalidAuthBodyError(f"unsupported code_challenge method {method[:20]!r}")
    return Challenge(text, method.lower())


def new_code() -> str:
    return secrets.token_urlsafe(32)


def code_hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()


def s256(verifier: str) -> str:
    """The challenge of a verifier."""
    digest = hashlib.sha256(verifier.encode("utf-8", "replace")).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
