"""What goes to a provider and comes back: state, nonce, the verifier of PKCE. Pure.

All of them are made from the id of the flow under a key that is not in the database: a copy of the
row tells none of them, and a forged state is refused without looking for one. RFC 6749, 10.12;
RFC 7636; OpenID Connect Core 1.0, 3.1.2.1.
"""

import base64
import binascii
import hashlib
import hmac
import uuid
from typing import Final, Literal, TypeAlias

LIFE_S: Final = 600
"""From the first redirect to the provider's answer; people look for their passwords."""

_MAC_BYTES = 16
_UUID_BYTES = 16
_TOKEN_LENGTH = 43  # of both, in base64url

Purpose: TypeAlias = Literal["state", "start"]
"""A state comes back from the provider; a start leads to it, in the browser of who asked for it."""


class FlowKey:
    """An app's."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def token(self, flow_id: str, purpose: Purpose) -> str:
        raw = uuid.UUID(flow_id).bytes
        return _base64url(raw + self._mac(purpose, raw)[:_MAC_BYTES])

    def flow_id(self, token: str, purpose: Purpose) -> str | None:
        """None for what this key has not made for the purpose."""
        if len(token) != _TOKEN_LENGTH or not token.isascii():
            return None
        try:
            decoded = base64.b64decode(token + "=", altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        raw, mac = decoded[:_UUID_BYTES], decoded[_UUID_BYTES:]
        if not hmac.compare_digest(mac, self._mac(purpose, raw)[:_MAC_BYTES]):
            return None
        return str(uuid.UUID(bytes=raw))

    def confirmation(self, flow_id: str, browser: str) -> str:
        """What only a page that this browser was shown can send."""
        mac = self._mac("confirmation", uuid.UUID(flow_id).bytes + browser.encode())
        return _base64url(mac)

    def verifier(self, flow_id: str) -> str:
        """Of PKCE, towards the provider."""
        return _base64url(self._mac("verifier", uuid.UUID(flow_id).bytes))

    def nonce(self, flow_id: str) -> str:
        return _base64url(self._mac("nonce", uuid.UUID(flow_id).bytes))

    def _mac(self, purpose: str, raw: bytes) -> bytes:
        return hmac.new(self._key, purpose.encode() + b"\0" + raw, hashlib.sha256).digest()


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
