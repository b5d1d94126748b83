"""`Prefer` → what the caller prefers, and `Preference-Applied`. Pure.

https://docs.postgrest.org/en/stable/references/api/preferences.html, RFC 7240
"""

import re
from typing import Literal, cast

from msgspec import Struct, structs

from butterbase.sql.memo import memoized

_NAMES = {
    "resolution": ("resolution", ("merge-duplicates", "ignore-duplicates")),
    "missing": ("missing", ("default", "null")),
    "representation": ("return", ("representation", "minimal", "headers-only")),
    "count": ("count", ("exact", "planned", "estimated")),
    "transaction": ("tx", ("commit", "rollback")),
    "handling": ("handling", ("strict", "lenient")),
}
"""Our names, theirs, and their values, in the order of `Preference-Applied`."""

_FIELDS = {
    f"{theirs}={value}": (ours, value)
    for ours, (theirs, values) in _NAMES.items()
    for value in values
}
_TIMEZONE = "timezone="
_MAX_AFFECTED = "max-affected="
_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Preferences(Struct, frozen=True):
    """None is for what was not said; of what was said twice the first counts."""

    resolution: Literal["merge-duplicates", "ignore-duplicates"] | None = None
    representation: Literal["representation", "minimal", "headers-only"] | None = None
    count: Literal["exact", "planned", "estimated"] | None = None
    transaction: Literal["commit", "rollback"] | None = None
    missing: Literal["default", "null"] | None = None
    handling: Literal["strict", "lenient"] | None = None
    timezone: str | None = None
    max_affected: int | None = None
    invalid: tuple[str, ...] = ()
    """What is none of these, as it was written."""


def parse_preferences(headers: tuple[str, ...], *, may_choose_transaction: bool) -> Preferences:
    """Of all `Prefer` headers. What is wrong in them is never an error here."""
    preferences = _parse(",".join(filter(None, headers)))
    if preferences.transaction is None or may_choose_transaction:
        return preferences
    return structs.replace(preferences, transaction=None)


@memoized
def _parse(header: str) -> Preferences:
    written = [part.strip() for part in header.split(",")] if header else []
    found: dict[str, str] = {}
    invalid = []
    for text in written:
        if text in _FIELDS:
            found.setdefault(*_FIELDS[text])
        elif not text.startswith((_TIMEZONE, _MAX_AFFECTED)):
            invalid.append(text)
    limit = _first(written, _MAX_AFFECTED)
    return Preferences(
        **cast("dict[str, None]", found),
        timezone=_first(written, _TIMEZONE),
        max_affected=int(limit) if limit and _NUMBER.fullmatch(limit) else None,
        invalid=tuple(invalid),
    )


def applied(preferences: Preferences) -> str:
    """`Preference-Applied`; empty when there is nothing to say."""
    parts = [
        f"{theirs}={value}"
        for ours, (theirs, _) in _NAMES.items()
        if (value := getattr(preferences, ours)) is not None
    ]
    if preferences.timezone is not None:
        parts.append(_TIMEZONE + preferences.timezone)
    if preferences.max_affected is not None and preferences.handling == "strict":
        parts.append(f"{_MAX_AFFECTED}{preferences.max_affected}")
    return ", ".join(parts)


def _first(written: list[str], prefix: str) -> str | None:
    return next((t.removeprefix(prefix) for t in written if t.startswith(prefix)), None)
