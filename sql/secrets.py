"""One master key, and every secret derived from it.

Passwords of our login roles and the signing secrets of apps are HKDF-SHA256 of the master key and
a purpose (RFC 5869), so nothing has to be stored twice. What must be stored is sealed
(sql/sealing.py) under a derived key, until `butterbase keys rotate` puts another in its place.
"""

import base64
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from butterbase.sql.errors import SettingError
from butterbase.sql.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    SealingKey,
    SealingKeys,
    UnknownSealingKeyError,
    is_envelope,
)


class MasterKey:
    """32 random bytes. Its text form is base64url; it appears in no log and no repr."""

    def __init__(
        self, key: bytes, *, sealing: Sequence[SealingKey] = (), sealing_file: Path | None = None
    ) -> None:
        """Sealing keys are those given, those of the file, and last the one derived from this."""
        if len(key) != KEY_BYTES:
            raise SettingError(f"the master key must be {KEY_BYTES} bytes, base64url-encoded")
        self._key = key
        derived = SealingKey(self._derive("sealing"))
        self.sealing = SealingKeys(sealing, last=derived, file=sealing_file)

    @classmethod
    def parse(cls, text: str, *, sealing: Sequence[SealingKey] = ()) -> "MasterKey":
        """Read the base64url form. Raises SettingError."""
        try:
            key = base64.urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
            return cls(key, sealing=sealing)
        except ValueError as error:
            raise SettingError("the master key is not base64url") from error

    @classmethod
    def load_or_create(cls, path: Path, *, sealing_file: Path | None = None) -> "MasterKey":
        """Read the key file, or make it, readable by its owner only."""
        try:
            return cls(cls.parse(path.read_text())._key, sealing_file=sealing_file)
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise SettingError(f"{path} cannot be read; it belongs to another user") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        key = cls(secrets.token_bytes(KEY_BYTES), sealing_file=sealing_file)
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
        """Encrypt for storage."""
        return self.sealing.seal(plaintext, purpose=purpose)

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """Decrypt what `seal` gave for the same purpose. Raises SettingError."""
        try:
            if is_envelope(sealed):
                return self.sealing.open(sealed, purpose=purpose)
            # As all were sealed before there were envelopes.
            nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            return AESGCM(self._derive(purpose)).decrypt(nonce, ciphertext, purpose.encode())
        except (InvalidTag, UnknownSealingKeyError) as error:
            raise SettingError("a stored secret was sealed under another master key") from error

    def _derive(self, purpose: str) -> bytes:
        return self.derive_bytes(purpose, length=KEY_BYTES)
