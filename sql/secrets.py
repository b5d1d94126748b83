"""One master key, and every secret derived from it.

Passwords of our login roles and the signing secrets of apps are HKDF-SHA256 of the master key and
a purpose (RFC 5869), so nothing has to be stored twice; what must be stored is sealed with
AES-256-GCM under a derived key.
"""

import base64
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from butterbase.sql.errors import SettingError

_KEY_BYTES = 32
_NONCE_BYTES = 12


class MasterKey:
    """32 random bytes. Its text form is base64url; it appears in no log and no repr."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise SettingError(f"the master key must be {_KEY_BYTES} bytes, base64url-encoded")
        self._key = key

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """Read the base64url form. Raises SettingError."""
        try:
            return cls(base64.urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4)))
        except ValueError as error:
            raise SettingError("the master key is not base64url") from error

    @classmethod
    def load_or_create(cls, path: Path) -> "MasterKey":
        """Read the key file, or make it, readable by its owner only."""
        try:
            return cls.parse(path.read_text())
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise SettingError(f"{path} cannot be read; it belongs to another user") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        key = cls(secrets.token_bytes(_KEY_BYTES))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.text() + "\n")
        return key

    def text(self) -> str:
        return base64.urlsafe_b64encode(self._key).decode().rstrip("=")

    def derive(self, purpose: str) -> str:
        """The secret for a purpose, 43 base64url characters: the same each time."""
        return base64.urlsafe_b64encode(self._derive(purpose)).decode().rstrip("=")

    def derive_bytes(self, purpose: str, *, length: int) -> bytes:
        """As `derive`, of any length and without a text form."""
        return HKDF(SHA256(), length, salt=None, info=purpose.encode()).derive(self._key)

    def seal(self, plaintext: bytes, *, purpose: str) -> bytes:
        """Encrypt for storage: nonce, ciphertext and tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._derive(purpose)).encrypt(nonce, plaintext, purpose.encode())

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """Decrypt what `seal` gave for the same purpose. Raises SettingError."""
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return AESGCM(self._derive(purpose)).decrypt(nonce, ciphertext, purpose.encode())
        except InvalidTag as error:
            raise SettingError("a stored secret was sealed under another master key") from error

    def _derive(self, purpose: str) -> bytes:
        return self.derive_bytes(purpose, length=_KEY_BYTES)
