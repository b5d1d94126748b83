"""The cookie by which a flow is one browser's: who did not begin it cannot end it.

Without it an attacker could sign a victim in to the attacker's account, by sending the victim the
answer that a provider gave the attacker. RFC 6749, section 10.12; RFC 9700, section 4.7.
"""

import hashlib
import re
import secrets
from typing import Final

from falcon.asgi import Request, Response

from butterbase.api.auth.oauth.state import LIFE_S

_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME: Final = "butterbase-oauth"


class Browser:
    """Of one request. Flows that it has under way at once, in several tabs, share the secret."""

    def __init__(self, req: Request, *, url: str, is_form_post: bool = False) -> None:
        # A form that another site posts comes without cookies, unless they say None.
        self._is_cross_site = is_form_post and url.startswith("https://")
        self._is_secure = url.startswith("https://")
        # The prefix has browsers refuse one that another host of the domain has set.
        name = f"__Host-{_NAME}" if self._is_secure else _NAME
        self._name = f"{name}-post" if self._is_cross_site else name
        values = req.get_cookie_values(self._name) or []
        self.secret: str | None = values[0] if values and _VALUE.fullmatch(values[0]) else None

    def remember(self, resp: Response) -> str:
        """The browser's secret, set or renewed."""
        secret = self.secret or secrets.token_urlsafe(32)
        resp.set_cookie(
            self._name,
            secret,
            max_age=LIFE_S,
            path="/",
            secure=self._is_secure,
            http_only=True,
            same_site="None" if self._is_cross_site else "Lax",
        )
        return secret


def secret_hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
