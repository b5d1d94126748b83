"""Who calls, and the id of the call: what Falcon's middleware and the REST endpoint share."""

import itertools
import re
import secrets

from butterbase.api.auth.tokens import Tokens
from butterbase.api.errors import MissingKeyError
from butterbase.sql.claims import Claims

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BEARER = "bearer "


def verify_caller(
    tokens: Tokens, *, authorization: str | None, key: str | None, now_s: float
) -> Claims:
    """The token of `Authorization: Bearer` speaks for the caller, else the `apikey`.

    Both must be valid where both are sent. Raises MissingKeyError, InvalidTokenError,
    ExpiredTokenError.
    """
    token = None
    if authorization and authorization[: len(_BEARER)].lower() == _BEARER:
        token = authorization[len(_BEARER) :].strip()
    if key:
        claims = tokens.verify(key, now_s=now_s)
        if not token or token == key:
            return claims
    elif not token:
        raise MissingKeyError
    return tokens.verify(token, now_s=now_s)


class RequestIds:
    """The client's own id where it is a plain one, else a new one of this worker's."""

    def __init__(self) -> None:
        # Made in the worker, after the fork: an id a request without asking for randomness each.
        self._worker_id = secrets.token_hex(4)
        self._count = itertools.count(1)

    def of(self, given: str | None) -> str:
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._worker_id}-{next(self._count):x}"
