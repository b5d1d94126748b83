"""The refresh token: which session it opens, and which of the session's tokens it is.

    version (1 byte) | session id (16) | nonce (8) | counter (varint) | HMAC-SHA256 of that (16)

The key is derived from the master key and the nonce is the session's, so what is at rest in the
database opens nothing, and a token that was not made here is refused before the database is asked.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import uuid

from msgspec import Struct

from butterbase.api.auth.errors import RefreshTokenError

VERSION = 1
NONCE_BYTES = 8
COUNTER_MAX = 2**31 - 1
"""Of the column."""

_MAC_BYTES = 16
_HEAD_BYTES = 1 + 16 + NONCE_BYTES
_TEXT_LENGTH_MAX = 100


class RefreshToken(Struct, frozen=True):
    session_id: str
    nonce: bytes
    counter: int


class RefreshTokens:
    """One app's. The key is its own."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, token: RefreshToken) -> str:
        body = (
            bytes([VERSION])
            + uuid.UUID(token.session_id).bytes
            + token.nonce
            + _encode_varint(token.counter)
        )
        return base64.urlsafe_b64encode(body + self._mac(body)).decode().rstrip("=")

    def decode(self, text: str) -> RefreshToken:
        """What was encoded. Raises RefreshTokenError for any other text."""
        if len(text) > _TEXT_LENGTH_MAX or not text.isascii():
            raise RefreshTokenError
        try:
            token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise RefreshTokenError from None
        body, mac = token[:-_MAC_BYTES], token[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise RefreshTokenError
        # Whatever has our MAC was made by encode, of this version or an earlier one.
        if body[:1] != bytes([VERSION]):
            raise RefreshTokenError
        return RefreshToken(
            session_id=str(uuid.UUID(bytes=body[1:17])),
            nonce=body[17:_HEAD_BYTES],
            counter=_decode_varint(body[_HEAD_BYTES:]),
        )

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]


def new_nonce() -> bytes:
    """Not a secret: it tells the tokens of a session apart from those it had before a change."""
    return secrets.token_bytes(NONCE_BYTES)


def _encode_varint(number: int) -> bytes:
    """Little-endian groups of seven bits, all but the last marked by the eighth."""
    assert 0 <= number <= COUNTER_MAX
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _decode_varint(encoded: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded))
