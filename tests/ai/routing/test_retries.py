"""What follows from a failure."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.routing.config import Retries
from butterbase.ai.routing.retries import (
    DELAY_S,
    DELAY_S_MAX,
    Failure,
    FailureKind,
    FallBack,
    NextTarget,
    Retry,
    Step,
    Stop,
    cooldown_s,
    decide,
    is_unhealthy,
    retry_after_s,
)

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


def decided(
    kind: FailureKind,
    *,
    retry_after: float | None = None,
    count: int = 1,
    try_count: int = 1,
    is_last: bool = False,
    has_context_window: bool = False,
    has_content_policy: bool = False,
    left_s: float = 60.0,
    chance: float = 0.0,
) -> Step:
    return decide(
        Failure(kind, retry_after),
        Retries(count),
        try_count=try_count,
        is_last=is_last,
        has_context_window=has_context_window,
        has_content_policy=has_content_policy,
        left_s=left_s,
        random=lambda: chance,
    )


@pytest.mark.parametrize("kind", ["server", "unreachable", "cut", "invalid_answer", "conflict"])
def test_what_may_pass_is_tried_again_at_the_same_target(kind: FailureKind) -> None:
    assert isinstance(decided(kind), Retry)
    assert isinstance(decided(kind, try_count=2), NextTarget)
    assert isinstance(decided(kind, try_count=2, is_last=True), Stop)


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded", "timeout"])
def test_who_is_busy_is_asked_again_only_where_nobody_else_is_left(kind: FailureKind) -> None:
    assert isinstance(decided(kind), NextTarget)
    assert isinstance(decided(kind, is_last=True), Retry)


@pytest.mark.parametrize(
    "kind",
    ["authentication", "permission", "quota", "not_found", "unsupported", "too_large",
     "context_window"],
)  # fmt: skip
def test_what_another_target_may_do_is_asked_of_it(kind: FailureKind) -> None:
    assert isinstance(decided(kind), NextTarget)
    assert isinstance(decided(kind, is_last=True), Stop)


@pytest.mark.parametrize("kind", ["invalid_request", "content_policy"])
def test_what_nobody_would_do_is_told_at_once(kind: FailureKind) -> None:
    assert isinstance(decided(kind), Stop)


@pytest.mark.parametrize("kind", ["context_window", "too_large"])
def test_a_long_conversation_falls_back_where_the_route_says_so(kind: FailureKind) -> None:
    assert decided(kind, has_context_window=True) == FallBack("context_window")


def test_refused_content_falls_back_where_the_route_says_so() -> None:
    assert decided("content_policy", has_content_policy=True) == FallBack("content_policy")


def test_the_delay_grows_and_is_jittered() -> None:
    longest = [decided("server", count=9, try_count=n, chance=1 - 1e-9) for n in range(1, 9)]
    shortest = [decided("server", count=9, try_count=n, chance=0.0) for n in range(1, 9)]
    for number, (long, short) in enumerate(zip(longest, shortest, strict=True)):
        assert isinstance(long, Retry)
        assert isinstance(short, Retry)
        assert long.delay_s == pytest.approx(min(DELAY_S * 2**number, DELAY_S_MAX))
        assert short.delay_s == pytest.approx(long.delay_s / 2)


def test_retry_after_is_waited_for() -> None:
    assert decided("rate_limit", retry_after=3.0, is_last=True) == Retry(3.0)


@pytest.mark.parametrize(("retry_after", "left_s"), [(11.0, 60.0), (3.0, 2.9)])
def test_a_longer_wait_than_is_allowed_is_left_to_the_client(
    retry_after: float, left_s: float
) -> None:
    step = decided("rate_limit", retry_after=retry_after, is_last=True, left_s=left_s)
    assert isinstance(step, Stop)


@pytest.mark.parametrize("kind", KINDS)
def test_without_retries_no_target_is_asked_twice(kind: FailureKind) -> None:
    for is_last in (False, True):
        assert not isinstance(decided(kind, count=0, is_last=is_last), Retry)


@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(0, 10),
    target_count=st.integers(1, 5),
    has_context_window=st.booleans(),
)
def test_every_journey_ends(
    kind: FailureKind, count: int, target_count: int, has_context_window: bool
) -> None:
    at, try_count, requests, may = 0, 1, 1, has_context_window
    while True:
        step = decided(
            kind,
            count=count,
            try_count=try_count,
            is_last=at + 1 == target_count,
            has_context_window=may,
        )
        match step:
            case Stop():
                break
            case Retry():
                try_count += 1
            case NextTarget():
                at, try_count = at + 1, 1
            case FallBack():
                at, try_count, may = 0, 1, False
        requests += 1
        assert at < target_count
        assert requests <= 1 + target_count * (count + 1) * 2


def test_a_target_is_left_alone_for_what_it_says_or_what_is_not_soon_mended() -> None:
    assert cooldown_s(Failure("rate_limit", 7.0)) == 7.0
    assert cooldown_s(Failure("rate_limit")) == 5.0
    assert cooldown_s(Failure("authentication")) == 60.0
    assert cooldown_s(Failure("server")) is None


@pytest.mark.parametrize("kind", ["invalid_request", "context_window", "not_found", "too_large"])
def test_what_the_request_did_wrong_is_not_held_against_the_target(kind: FailureKind) -> None:
    assert not is_unhealthy(Failure(kind))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:10 GMT"}, 10.0),
        ({"retry-after": "Sat, 21 Nov 2020 12:00:10 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "inf", "retry-after": "1"}, 1.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, 1795262400.0) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()))
def test_any_header_is_a_wait_or_none(headers: dict[str, str]) -> None:
    seconds = retry_after_s(headers, 0.0)
    assert seconds is None or seconds >= 0
