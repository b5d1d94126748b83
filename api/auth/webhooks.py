"""Hooks at a URL: a signed POST of JSON, as https://www.standardwebhooks.com has it."""

import base64
import binascii
import hmac
import time
import uuid
from collections.abc import Callable
from typing import Protocol

import msgspec

from butterbase.api.auth.config import Secret
from butterbase.api.auth.errors import HookError, InvalidAuthBodyError
from butterbase.api.auth.oauth.errors import ProviderUnreachableError

_PREFIXES = ("v1,", "whsec_")
_SECRET_BYTES_MIN = 16


class Web(Protocol):
    """Requests to addresses that an app's administrator has named."""

    @property
    def is_private_allowed(self) -> bool:
        """Whether they may be of this machine and its network."""
        ...

    def check(self, url: str) -> None:
        """Raises ProviderUnreachableError for an address where nobody is to be sent."""
        ...

    async def post_json(
        self, url: str, body: bytes, *, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises ProviderUnreachableError."""
        ...


def is_url(hook: str) -> bool:
    """A hook is that, or a function."""
    return "://" in hook


def key_of(secret: str) -> bytes:
    """The key of a secret `v1,whsec_…` or `whsec_…`. Raises InvalidAuthBodyError."""
    text = secret
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _SECRET_BYTES_MIN:
        raise InvalidAuthBodyError(
            f"hooks.secret is not whsec_ and at least {_SECRET_BYTES_MIN} bytes in base64"
        )
    return key


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


async def post(
    web: Web,
    url: str,
    secret: Secret | None,
    payload: object,
    *,
    clock: Callable[[], float] = time.time,
) -> bytes:
    """The answer's JSON, also one that refuses; an empty object for an empty answer.

    Raises HookError.
    """
    if secret is None:  # as it was stored by hand
        raise HookError("hooks.secret is not set")
    body, message_id, now_s = msgspec.json.encode(payload), f"msg_{uuid.uuid4().hex}", int(clock())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": signature(key_of(secret.text), message_id, now_s, body),
    }
    try:
        status, answer = await web.post_json(url, body, headers=headers)
    except ProviderUnreachableError as error:
        raise HookError(f"the hook cannot be reached: {error.message}") from error
    if status >= 500 or 300 <= status < 400 or (status >= 400 and not answer):
        raise HookError(f"the hook answered with status {status}")
    return answer or b"{}"
