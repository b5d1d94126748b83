"""Who calls, and the id of the call: what Falcon's middleware and the REST endpoint share."""

import itertools
import re
import secrets

from butterbase.api.auth.tokens import ExpiredTokenError, Tokens
from butterbase.api.errors import MissingKeyError
from butterbase.api.keys.errors import InsufficientScopeError
from butterbase.api.keys.key import Scope, is_key
from butterbase.api.keys.keyring import Keyring
from butterbase.api.operators.operators import Operators
from butterbase.sql.claims import Claims
from butterbase.sql.errors import InvalidTokenError

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BEARER = "bearer "


async def verify_caller(
    tokens: Tokens,
    keyring: Keyring,
    *,
    scope: Scope | None,
    authorization: str | None,
    key: str | None,
    now_s: float,
    operators: Operators | None = None,
) -> Claims:
    """The token of `Authorization: Bearer` speaks for the caller, else the `apikey`.

    Both must be valid where both are sent, and an app key, as either, have the scope; None is what
    no app key may do. An operator's token may be sent as either.

    Raises MissingKeyError, InvalidTokenError, ExpiredTokenError, InsufficientScopeError,
    OperatorFactorError, DatabaseUnavailableError.
    """
    token = bearer_of(authorization)
    claims = None
    for text in (key, token if token != key else None):
        if not text:
            continue
        if is_key(text):
            claims = await keyring.verify(text, scope=scope, now_s=now_s)
        else:
            claims = await _verify_token(tokens, text, now_s, operators)
            _check_scope(claims, scope)
    if claims is None:
        raise MissingKeyError
    return claims


def _check_scope(claims: Claims, scope: Scope | None) -> None:
    """Of a function's token. Raises InsufficientScopeError."""
    if claims.scopes is not None and (scope is None or scope not in claims.scopes):
        raise InsufficientScopeError("this cannot be done with the token of this function")


async def _verify_token(
    tokens: Tokens, token: str, now_s: float, operators: Operators | None
) -> Claims:
    """The app's own first: they are many, and operators few."""
    try:
        return tokens.verify(token, now_s=now_s, is_scoped_allowed=True)
    except InvalidTokenError as error:
        if operators is None or isinstance(error, ExpiredTokenError):
            raise
        claims = await operators.verify(token, now_s=now_s)
        if claims is None:
            raise
        return claims


def bearer_of(authorization: str | None) -> str | None:
    """The token of the header; None where it has another scheme."""
    if authorization and authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return None


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
