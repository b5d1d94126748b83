"""Envelopes: what is stored of a secret, and the keys that it can be opened with.

Each secret is encrypted under a data key of its own, and that key under a sealing key, whose id
stands beside it. So sealing keys are rotated by wrapping data keys anew, without the secrets
themselves and without knowing what each is for. All ciphers are AES-256-GCM.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from butterbase.sql.errors import SettingError

KEY_BYTES = 32
NONCE_BYTES = 12

_MAGIC = b"\x00bbE"
_ID_BYTES = 8
_WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + 16
_HEAD_BYTES = len(_MAGIC) + _ID_BYTES + _WRAPPED_BYTES


class UnknownSealingKeyError(SettingError):
    """A stored secret was sealed under another master key, or one that is gone."""


class SealingKey:
    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SettingError(f"a sealing key must be {KEY_BYTES} bytes, base64url-encoded")
        self._key = key
        self._cipher = AESGCM(key)
        self.id = hashlib.sha256(b"butterbase sealing key" + key).digest()[:_ID_BYTES]

    def text(self) -> str:
        return base64.urlsafe_b64encode(self._key).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "SealingKey":
        """Raises SettingError."""
        text = text.strip()
        try:
            return cls(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError as error:
            raise SettingError("a sealing key is not base64url") from error

    def wrap(self, data_key: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return _MAGIC + self.id + nonce + self._cipher.encrypt(nonce, data_key, self.id)

    def unwrap(self, head: bytes) -> bytes:
        nonce, wrapped = head[-_WRAPPED_BYTES:][:NONCE_BYTES], head[-_WRAPPED_BYTES + NONCE_BYTES :]
        return self._cipher.decrypt(nonce, wrapped, self.id)


class SealingKeys:
    """The first one seals, and all of them open."""

    def __init__(
        self, keys: Sequence[SealingKey], *, last: SealingKey, file: Path | None = None
    ) -> None:
        """`last` is there always. With a `file`, a key that was added to it is found there."""
        self._given = tuple(keys)
        self._last = last
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[SealingKey, ...] = (*keys, last)
        if file is not None:
            self._refresh()

    @property
    def all(self) -> tuple[SealingKey, ...]:
        self._refresh()
        return self._keys

    def seal(self, plaintext: bytes, *, purpose: str) -> bytes:
        data_key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, purpose.encode())
        return self.all[0].wrap(data_key) + nonce + ciphertext

    def open(self, sealed: bytes, *, purpose: str) -> bytes:
        """Raises UnknownSealingKeyError, InvalidTag."""
        data_key = self._unwrap(sealed)
        nonce, ciphertext = _split(sealed[_HEAD_BYTES:])
        return AESGCM(data_key).decrypt(nonce, ciphertext, purpose.encode())

    def rewrapped(self, sealed: bytes) -> bytes:
        """The same secret under the first key. Raises UnknownSealingKeyError, InvalidTag."""
        first = self.all[0]
        if _id(sealed) == first.id:
            return sealed
        return first.wrap(self._unwrap(sealed)) + sealed[_HEAD_BYTES:]

    def _unwrap(self, sealed: bytes) -> bytes:
        id_, head = _id(sealed), sealed[:_HEAD_BYTES]
        for key in self._keys:
            if key.id == id_:
                return key.unwrap(head)
        self._refresh()
        for key in self._keys:
            if key.id == id_:
                return key.unwrap(head)
        raise UnknownSealingKeyError

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, (*self._given, self._last)
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._keys = (*self._given, *read_keys(self._file), self._last)
            self._stamp = stamp


def is_envelope(sealed: bytes) -> bool:
    return sealed.startswith(_MAGIC) and len(sealed) > _HEAD_BYTES


def read_keys(file: Path) -> list[SealingKey]:
    """Those of the file, the newest first. Raises SettingError."""
    try:
        lines = file.read_text().split()
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise SettingError(f"{file} cannot be read; it belongs to another user") from error
    return [_parse(line) for line in lines]


def write_keys(file: Path, keys: Sequence[SealingKey]) -> None:
    """Readable by its owner only; whoever reads it meanwhile finds those of before or after."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write("".join(f"{key.text()}\n" for key in keys))
        opened.flush()
        os.fsync(descriptor)
    new.replace(file)


def new_key() -> SealingKey:
    return SealingKey(secrets.token_bytes(KEY_BYTES))


@lru_cache(maxsize=100)
def _parse(text: str) -> SealingKey:
    return SealingKey.parse(text)


def _id(sealed: bytes) -> bytes:
    return sealed[len(_MAGIC) :][:_ID_BYTES]


def _split(sealed: bytes) -> tuple[bytes, bytes]:
    return sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
