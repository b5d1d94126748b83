"""Who runs the platform, by the access token of a session in the control database.

An operator's token opens every app as its service_role key does, wherever a key or a token is sent.
"""

import uuid
from collections import OrderedDict

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.tokens import ExpiredTokenError
from butterbase.api.errors import MissingKeyError
from butterbase.api.operators.errors import OperatorFactorError
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import ANON, AUTHENTICATED, SERVICE_ROLE, Claims, claims_for_role
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.pipeline import Statement

QUERIES = load_queries("operators")

KEPT_S = 5.0
"""How long after it has ended a session may still be taken for one, by another worker."""

KEPT_COUNT_MAX = 1000

_ANYONE = claims_for_role(ANON)


class _Known(Struct, frozen=True):
    claims: Claims
    is_factor_missing: bool
    read_at: float


class Operators:
    """Sessions that are there are remembered for a short time, by their ids."""

    def __init__(self, runtime: AppRuntime) -> None:
        self.runtime = runtime
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._forgotten_count = 0

    async def verify(self, token: str, *, now_s: float) -> Claims | None:
        """The service role of any app; None where the token is no operator's.

        Raises InvalidTokenError, ExpiredTokenError, OperatorFactorError, DatabaseUnavailableError.
        """
        try:
            claims = self.runtime.tokens.verify(token, now_s=now_s)
        except ExpiredTokenError:
            raise
        except InvalidTokenError:
            return None
        if claims.role != AUTHENTICATED or claims.subject is None or claims.session_id is None:
            return None
        ids = (claims.subject, claims.session_id)
        known = self._known.get(ids)
        if known is None or not 0 <= now_s - known.read_at < KEPT_S:
            known = await self._read(ids, claims, now_s)
        if known.is_factor_missing:
            raise OperatorFactorError
        return msgspec.structs.replace(known.claims, expires_at=claims.expires_at)

    async def caller(self, token: str | None, *, is_admin: bool, now_s: float) -> Claims:
        """Who calls the operators' own auth: anybody, an operator, or one as administrator.

        Raises what `verify` does, MissingKeyError for an administrator who is nobody.
        """
        if is_admin:
            claims = await self.verify(token, now_s=now_s) if token else None
            if claims is None:
                raise MissingKeyError
            return claims
        return self.runtime.tokens.verify(token, now_s=now_s) if token else _ANYONE

    def forget(self) -> None:
        """Ask again for each session: one may have ended."""
        self._known.clear()
        self._forgotten_count += 1

    async def _read(self, ids: tuple[str, str], claims: Claims, now_s: float) -> _Known:
        self._known.pop(ids, None)
        forgotten_count = self._forgotten_count
        try:
            user_id, session_id = (str(uuid.UUID(text)) for text in ids)
        except ValueError:
            raise InvalidTokenError("the token is no operator's") from None
        (result,) = await self.runtime.service.run(
            Statement.of(QUERIES["find_session"], session_id, user_id, now_s)
        )
        if result.row_count == 0:
            raise InvalidTokenError("the operator's session has ended")
        email, is_factor_missing = result.rows()[0]
        payload = {"role": SERVICE_ROLE, "operator": (email or b"").decode()}
        found = _Known(
            Claims(role=SERVICE_ROLE, json=msgspec.json.encode(payload).decode()),
            is_factor_missing == b"t",
            now_s,
        )
        if forgotten_count != self._forgotten_count:
            return found  # what was read may be of before
        self._known[ids] = found
        if len(self._known) > KEPT_COUNT_MAX:
            self._known.popitem(last=False)
        return found
