"""The token with which a function calls the platform in its own name: short-lived, for some things.

It is the app's service role with scopes: functions and models always, data where the function is
granted `service`. HS256, since one is made for most calls.
"""

import time

from butterbase.api.auth.tokens import FUNCTION_CLAIM, SCOPES_CLAIM, Tokens
from butterbase.api.keys.key import Scope
from butterbase.sql.claims import SERVICE_ROLE

LIFE_S = 900
"""Longer than a call may take."""
KEPT_S = 60
"""So long the same one is given."""
_KEPT_COUNT_MAX = 10_000


class FunctionTokens:
    """Of one app."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._kept: dict[tuple[str, bool], tuple[float, str]] = {}

    def get(self, name: str, *, service: bool, now_s: float | None = None) -> str:
        """`service`: whether the function is granted the app's data."""
        now_s = time.time() if now_s is None else now_s
        kept = self._kept.get((name, service))
        if kept is not None and 0 <= now_s - kept[0] < KEPT_S:
            return kept[1]
        if len(self._kept) >= _KEPT_COUNT_MAX:
            self._kept.clear()
        token = self._make(name, service, now_s)
        self._kept[name, service] = now_s, token
        return token

    def _make(self, name: str, service: bool, now_s: float) -> str:
        scopes = [Scope.FUNCTIONS, Scope.AI, *([Scope.DATA] if service else [])]
        claims = {
            "aud": "butterbase:function",
            "role": SERVICE_ROLE,
            "iat": int(now_s),
            "exp": int(now_s) + LIFE_S,
            FUNCTION_CLAIM: name,
            SCOPES_CLAIM: [str(scope) for scope in scopes],
        }
        return self._tokens.sign_claims(claims, now_s=now_s, algorithm="HS256")
