"""Verifying an app's keys at the edge, each remembered for a short time."""

from collections import OrderedDict

import msgspec
from msgspec import Struct

from butterbase.api.auth.tokens import ExpiredTokenError
from butterbase.api.keys.errors import InsufficientScopeError
from butterbase.api.keys.key import KEY_LENGTH_MAX, Scope, hash_key
from butterbase.api.keys.store import QUERIES
from butterbase.sql.claims import SERVICE_ROLE, Claims
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.pipeline import Executor, Statement, bytea

KEPT_S = 5.0
"""How long after it was revoked a key may still be accepted, by another worker."""

_SCOPES = msgspec.json.Decoder(frozenset[Scope])


class _Known(Struct, frozen=True):
    claims: Claims
    scopes: frozenset[Scope]
    expires_at: float
    read_at: float


class Keyring:
    """One app's keys. Only those that are valid are remembered, under their hash."""

    def __init__(
        self, control: Executor, app_id: str, *, kept_s: float = KEPT_S, kept_count_max: int = 1000
    ) -> None:
        self._control = control
        self._app_id = app_id
        self._kept_s = kept_s
        self._kept_count_max = kept_count_max
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._forgotten_count = 0

    async def verify(self, key: str, *, scope: Scope | None, now_s: float) -> Claims:
        """The service role, for what needs the scope; None is what no key may do.

        Raises InvalidTokenError, ExpiredTokenError, InsufficientScopeError,
        DatabaseUnavailableError.
        """
        if len(key) > KEY_LENGTH_MAX:
            raise InvalidTokenError("the key is not valid")
        digest = hash_key(key)
        known = self._known.get(digest)
        if known is None or not 0 <= now_s - known.read_at < self._kept_s:
            known = await self._read(digest, now_s)
        if known.expires_at <= now_s:
            raise ExpiredTokenError("the key has expired")
        if scope is None:
            raise InsufficientScopeError("this cannot be done with an app key")
        if scope not in known.scopes:
            raise InsufficientScopeError(f"this needs a key with the scope {scope}")
        return known.claims

    def forget(self) -> None:
        """Ask again for each key: one was revoked."""
        self._known.clear()
        self._forgotten_count += 1

    async def _read(self, digest: bytes, now_s: float) -> _Known:
        self._known.pop(digest, None)
        forgotten_count = self._forgotten_count
        (result,) = await self._control.run(
            Statement.of(QUERIES["use_key"], self._app_id, bytea(digest))
        )
        if result.row_count == 0:
            raise InvalidTokenError("the key is not valid, or was revoked")
        key_id, scopes, expires_at = (value or b"" for value in result.rows()[0])
        payload = {"role": SERVICE_ROLE, "key_id": key_id.decode()}
        opens = _SCOPES.decode(scopes)
        known = _Known(
            Claims(
                role=SERVICE_ROLE,
                json=msgspec.json.encode(payload).decode(),
                expires_at=int(float(expires_at)),
                key_id=key_id.decode(),
                scopes=opens,
            ),
            opens,
            float(expires_at),
            now_s,
        )
        if forgotten_count != self._forgotten_count:
            return known  # what was read may be of before
        self._known[digest] = known
        if len(self._known) > self._kept_count_max:
            self._known.popitem(last=False)
        return known
