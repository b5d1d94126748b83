"""What follows from a request to a provider that failed; without IO, chance is an argument."""

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

from msgspec import Struct

from butterbase.ai.routing.config import Retries

FailureKind: TypeAlias = Literal[
    "invalid_request",
    "context_window",
    "content_policy",
    "too_large",
    "authentication",
    "permission",
    "quota",
    "not_found",
    "rate_limit",
    "conflict",
    "timeout",
    "overloaded",
    "server",
    "unreachable",
    "cut",
    "invalid_answer",
    "unsupported",
]

DELAY_S = 0.25
"""Before the first retry, at most; then twice as long each time."""

DELAY_S_MAX = 8.0

_RATE_LIMIT_COOLDOWN_S = 5.0
_KEY_COOLDOWN_S = 60.0
"""A key that is refused, or a bill that is not paid, is not mended in a moment."""

_SAME_TARGET: frozenset[FailureKind] = frozenset(
    {"conflict", "rate_limit", "overloaded", "timeout", "server", "unreachable", "cut",
     "invalid_answer"}
)  # fmt: skip
"""Another request to the same target may succeed."""

_OTHER_TARGET: frozenset[FailureKind] = _SAME_TARGET | {
    "authentication", "permission", "quota", "not_found", "unsupported", "context_window",
    "too_large",
}  # fmt: skip
"""Another target may do what this one cannot."""

_AWAY: frozenset[FailureKind] = frozenset({"rate_limit", "overloaded", "timeout"})
"""Where others are left, the target is not asked again at once: it has said that it is busy, or the
client has waited long enough for it."""

_UNHEALTHY: frozenset[FailureKind] = frozenset(
    {"rate_limit", "overloaded", "timeout", "server", "unreachable", "cut", "invalid_answer",
     "authentication", "quota"}
)  # fmt: skip
"""Tells of the target, and not of the request."""


class Failure(Struct, frozen=True):
    kind: FailureKind
    retry_after_s: float | None = None
    """How long the provider asks to be left alone."""


class Retry(Struct, frozen=True):
    """The same target again."""

    delay_s: float


class NextTarget(Struct, frozen=True):
    pass


class FallBack(Struct, frozen=True):
    """To the targets of the route that are there for this."""

    to: Literal["context_window", "content_policy"]


class Stop(Struct, frozen=True):
    """The client is told."""


Step: TypeAlias = Retry | NextTarget | FallBack | Stop


def decide(
    failure: Failure,
    rules: Retries,
    *,
    try_count: int,
    is_last: bool,
    has_context_window: bool,
    has_content_policy: bool,
    left_s: float,
    random: Callable[[], float],
) -> Step:
    """What to do after the `try_count`th request to a target, `is_last` of those planned.

    `left_s` is the time that the call still has. `random` answers numbers from 0 up to 1.
    """
    kind = failure.kind
    if kind in {"context_window", "too_large"} and has_context_window:
        return FallBack("context_window")
    if kind == "content_policy" and has_content_policy:
        return FallBack("content_policy")
    if kind in _SAME_TARGET and try_count <= rules.count and (is_last or kind not in _AWAY):
        delay_s = _delay_s(failure, try_count, random)
        if delay_s <= rules.delay_max and delay_s < left_s:
            return Retry(delay_s)
    return NextTarget() if kind in _OTHER_TARGET and not is_last else Stop()


def _delay_s(failure: Failure, try_count: int, random: Callable[[], float]) -> float:
    if failure.retry_after_s is not None:
        # As long as it asks for, and a little more: others were told the same.
        return failure.retry_after_s * (1 + random() / 10)
    longest_s: float = min(DELAY_S * 2 ** (try_count - 1), DELAY_S_MAX)
    return longest_s * (1 + random()) / 2


def is_unhealthy(failure: Failure) -> bool:
    """Whether it counts against the target."""
    return failure.kind in _UNHEALTHY


def cooldown_s(failure: Failure) -> float | None:
    """How long to call others in its place, where one failure is enough to know."""
    if failure.kind in {"rate_limit", "overloaded"} and failure.retry_after_s is not None:
        return failure.retry_after_s
    if failure.kind == "rate_limit":
        return _RATE_LIMIT_COOLDOWN_S
    return _KEY_COOLDOWN_S if failure.kind in {"authentication", "quota"} else None


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Of `retry-after-ms` or `retry-after`, as seconds or a date; None where there is neither.

    `now_s` is Unix time. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    text = headers.get("retry-after")
    if text is None or (seconds := _number(text)) is not None:
        return None if text is None else seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
