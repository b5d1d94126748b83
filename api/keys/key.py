"""App keys: what one looks like, and which routes each of its scopes opens.

A key is `bb_` and 256 random bits. It is shown once and kept as its SHA-256, which needs no slow
hash since nobody can guess it.
"""

import hashlib
import secrets
from enum import StrEnum

from butterbase.sql.memo import memoized

PREFIX = "bb_"
KEY_LENGTH_MAX = 100
_HINT_LENGTH = len(PREFIX) + 4


class Scope(StrEnum):
    """What a key may be used for; what no scope opens is closed to keys."""

    DATA = "data"
    """The REST API, as the service role."""
    AI = "ai"
    """Models, embeddings and document collections."""
    FUNCTIONS = "functions"
    """Deploying and invoking functions."""
    ADMIN = "admin"
    """Users and sessions, the app's configuration and its keys."""


_APP_PREFIX = "/v1/{app_id}"

# Route templates by their beginning; the longest decides.
_SCOPES = {
    "/auth/v1/": Scope.ADMIN,
    "/keys": Scope.ADMIN,
    "/ai/config": Scope.ADMIN,
    "/ai/cache": Scope.ADMIN,
    "/ai/contents": Scope.ADMIN,
    "/ai/prompts": Scope.ADMIN,
    "/ai/": Scope.AI,
    "/chat/": Scope.AI,
    "/embeddings": Scope.AI,
    "/models": Scope.AI,
    "/rag/": Scope.AI,
    "/functions": Scope.FUNCTIONS,
}


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def is_key(text: str) -> bool:
    """Whether it is to be read as an app key, valid or not."""
    return text.startswith(PREFIX)


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def hint_of(key: str) -> str:
    """By which its owner can tell it from others."""
    return f"{key[:_HINT_LENGTH]}…"


@memoized
def scope_of(route: str) -> Scope | None:
    """The scope that a route template needs; None is closed to keys."""
    path = route.removeprefix(_APP_PREFIX)
    begins = [begin for begin in _SCOPES if path.startswith(begin)]
    return _SCOPES[max(begins, key=len)] if begins else None
