"""Time-based one-time passwords: six digits of HMAC-SHA1 over 30-second steps. RFC 6238, RFC 4226.

SHA-1, six digits and 30 seconds are what every authenticator app reads; several ignore anything
else that the URI asks for. https://github.com/google/google-authenticator/wiki/Key-Uri-Format
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import segno

STEP_S = 30
DIGITS = 6
SECRET_BYTES = 20
"""As long as the hash, RFC 4226 section 4."""

SKEW_STEPS = 1
"""How many steps the phone's clock may be off, and the user slow."""

ISSUER_BYTES_MAX = 100
ACCOUNT_BYTES_MAX = 256
"""Of the names in the URI, so that it fits into a QR code; what is longer is cut."""

_QUIET_MODULES = 4


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def format_secret(secret: bytes) -> str:
    """Base32, as it is typed into an app."""
    return base64.b32encode(secret).decode().rstrip("=")


def step_at(now_s: float) -> int:
    return int(now_s // STEP_S)


def code_of(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    mac = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    offset = mac[-1] & 0xF
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).rjust(digits, "0")


def matching_step(secret: bytes, code: str, *, now_s: float) -> int | None:
    """The step whose code it is, of those that the clock's skew allows; None for a wrong code.

    Whether the step was used before is for the caller to find out, where it is kept.
    """
    code = "".join(code.split())
    if len(code) != DIGITS or not code.isascii():
        return None
    now, found = step_at(now_s), None
    # All are compared, so that the time tells nothing of which was near.
    for step in range(max(now - SKEW_STEPS, 0), now + SKEW_STEPS + 1):
        if hmac.compare_digest(code_of(secret, step), code):
            found = step
    return found


def provisioning_uri(secret: bytes, *, issuer: str, account: str) -> str:
    """What the QR code holds."""
    issuer = _name(issuer, bytes_max=ISSUER_BYTES_MAX)
    account = _name(account, bytes_max=ACCOUNT_BYTES_MAX)
    parameters = {
        "secret": format_secret(secret),
        "issuer": issuer,
        "algorithm": "SHA1",
        "digits": DIGITS,
        "period": STEP_S,
    }
    label = f"{quote(issuer, safe='')}:{quote(account, safe='@')}"
    return f"otpauth://totp/{label}?{urlencode(parameters, quote_via=quote)}"


def qr_svg(text: str) -> str:
    """The text as a QR code, dark on light.

    Clients put `data:image/svg+xml;utf-8,` before it, so it holds neither `#` nor `%`.
    Raises ValueError when the text is too long for a QR code.
    """
    matrix = segno.make_qr(text, error="m", boost_error=False).matrix
    size = len(matrix) + 2 * _QUIET_MODULES
    path = "".join(
        f"M{start + _QUIET_MODULES} {row + _QUIET_MODULES}h{length}v1h-{length}z"
        for row, modules in enumerate(matrix)
        for start, length in _dark_runs(bytes(modules))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}"'
        f' width="{4 * size}" height="{4 * size}" shape-rendering="crispEdges">'
        f'<rect width="{size}" height="{size}" fill="white"/>'
        f'<path fill="black" d="{path}"/></svg>'
    )


def _name(text: str, *, bytes_max: int) -> str:
    """Without colons, since one parts issuer and account in the label."""
    return text.replace(":", " ").encode()[:bytes_max].decode(errors="ignore")


def _dark_runs(modules: bytes) -> Iterator[tuple[int, int]]:
    """(start, length) of each run of dark modules in a row."""
    start = modules.find(1)
    while start >= 0:
        end = modules.find(0, start)
        end = len(modules) if end < 0 else end
        yield start, end - start
        start = modules.find(1, end)
