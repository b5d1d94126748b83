"""Durations as the admin API takes them: `24h`, `1h30m`, `876600h`; Go's text form.

https://pkg.go.dev/time#ParseDuration
"""

import re
from decimal import Decimal

from butterbase.api.auth.errors import InvalidAuthBodyError

DURATION_S_MAX = 292 * 365 * 24 * 3600
"""About what Go's nanoseconds hold, and less than Postgres's dates."""

_UNITS_S = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(h|ms|us|µs|ns|m|s)", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds, not negative. Raises InvalidAuthBodyError."""
    if text == "0":
        return 0.0
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group() for part in parts) != text:
        raise InvalidAuthBodyError(f"invalid format for ban duration: {text[:40]!r}")
    seconds = sum((Decimal(part[1]) * _UNITS_S[part[2]] for part in parts), Decimal())
    if seconds > DURATION_S_MAX:
        raise InvalidAuthBodyError(f"a ban duration is at most {DURATION_S_MAX // 3600}h")
    return float(seconds)
