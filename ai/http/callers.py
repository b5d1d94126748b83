"""Who a verified caller is to the gateway, by the claims of the request."""

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from butterbase.ai.calls.call import Caller
from butterbase.sql.claims import AUTHENTICATED, Claims

_SUBJECTS: Final = UUID("5f6a4a3e-8d8e-5b0a-9a57-3c1d2f0f6b11")
"""Of ids that are made of subjects."""

_KEPT_COUNT_MAX: Final = 10_000


def caller_of(app_id: str, claims: Claims, request_id: str) -> Caller:
    return Caller(
        app_id,
        claims.role,
        user_id_of(claims),
        request_id,
        key_id=_uuid(claims.key_id),
        function=claims.function,
    )


def user_id_of(claims: Claims) -> UUID | None:
    """The user's id: books, budgets and the cache tell users apart by it. None for the app's keys,
    and for a token that names nobody.

    Another issuer's subjects may be no UUIDs: each has one that is made of it (RFC 9562, 5.5), the
    same each time.
    """
    subject = claims.subject
    if subject is None or (found := _uuid(subject)) is not None:
        return None if subject is None else found
    if claims.role != AUTHENTICATED or not subject:
        return None
    return _made_of(subject)


@lru_cache(_KEPT_COUNT_MAX)
def _made_of(subject: str) -> UUID:
    return uuid5(_SUBJECTS, subject)


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
