"""Cooldowns, circuits and latencies of targets."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from butterbase.ai.routing.health import (
    COOLDOWN_S,
    COOLDOWN_S_MAX,
    FAILURE_COUNT_MAX,
    LATENCY_KEPT_S,
    PROBE_S_MAX,
    TARGET_COUNT_MAX,
    Health,
)

KEY = "target"


@pytest.fixture
def health() -> Health:
    return Health()


def fail(health: Health, now_s: float = 0.0, *, times: int = FAILURE_COUNT_MAX) -> None:
    for _ in range(times):
        health.failed(KEY, now_s)


def succeed(health: Health, now_s: float = 0.0, *, latency_s: float = 0.1) -> None:
    health.succeeded(KEY, now_s, latency_s=latency_s, is_streamed=False)


def test_a_circuit_opens_when_failures_follow_each_other(health: Health) -> None:
    fail(health, times=FAILURE_COUNT_MAX - 1)
    assert health.state(KEY, 0.0) == "closed"
    health.failed(KEY, 0.0)
    assert health.state(KEY, 0.0) == "open"


def test_a_success_in_between_keeps_it_closed(health: Health) -> None:
    fail(health, times=FAILURE_COUNT_MAX - 1)
    succeed(health)
    fail(health, times=FAILURE_COUNT_MAX - 1)
    assert health.state(KEY, 0.0) == "closed"


def test_one_call_probes_when_the_cooldown_is_over(health: Health) -> None:
    fail(health)
    assert health.state(KEY, COOLDOWN_S) == "half_open"
    health.began(KEY, COOLDOWN_S)
    assert health.state(KEY, COOLDOWN_S) == "open"


def test_a_probe_that_succeeds_closes_it(health: Health) -> None:
    fail(health)
    health.began(KEY, COOLDOWN_S)
    succeed(health, COOLDOWN_S)
    assert health.state(KEY, COOLDOWN_S) == "closed"
    fail(health, COOLDOWN_S, times=FAILURE_COUNT_MAX - 1)
    assert health.state(KEY, COOLDOWN_S) == "closed"


def test_a_probe_that_fails_opens_it_for_twice_as_long(health: Health) -> None:
    fail(health)
    health.began(KEY, COOLDOWN_S)
    health.failed(KEY, COOLDOWN_S)
    assert health.state(KEY, COOLDOWN_S * 2.9) == "open"
    assert health.state(KEY, COOLDOWN_S * 3) == "half_open"


def test_a_probe_whose_client_leaves_lets_the_next_call_probe(health: Health) -> None:
    fail(health)
    health.began(KEY, COOLDOWN_S)
    health.ended(KEY)
    assert health.state(KEY, COOLDOWN_S) == "half_open"


def test_a_probe_that_never_ends_is_taken_for_lost(health: Health) -> None:
    fail(health)
    health.began(KEY, COOLDOWN_S)
    assert health.state(KEY, COOLDOWN_S + PROBE_S_MAX + 1) == "half_open"


def test_a_target_that_asks_to_be_left_alone_is_so_at_once(health: Health) -> None:
    health.failed(KEY, 0.0, cooldown_s=20.0)
    assert health.state(KEY, 19.9) == "open"
    assert health.state(KEY, 20.0) == "half_open"


def test_nobody_is_left_alone_for_ever(health: Health) -> None:
    health.failed(KEY, 0.0, cooldown_s=1e9)
    assert health.state(KEY, COOLDOWN_S_MAX) == "half_open"


def test_latency_is_an_average_in_which_the_latest_counts_most(health: Health) -> None:
    assert health.latency_s(KEY, 0.0, is_streamed=False) is None
    succeed(health, latency_s=1.0)
    assert health.latency_s(KEY, 0.0, is_streamed=False) == 1.0
    succeed(health, latency_s=2.0)
    assert health.latency_s(KEY, 0.0, is_streamed=False) == pytest.approx(1.3)
    assert health.latency_s(KEY, 0.0, is_streamed=True) is None


def test_an_old_latency_is_forgotten(health: Health) -> None:
    succeed(health, latency_s=1.0)
    assert health.latency_s(KEY, LATENCY_KEPT_S + 1, is_streamed=False) is None
    succeed(health, LATENCY_KEPT_S + 1, latency_s=3.0)
    assert health.latency_s(KEY, LATENCY_KEPT_S + 1, is_streamed=False) == 3.0


def test_no_more_targets_are_remembered_than_are_allowed(health: Health) -> None:
    fail(health)
    for number in range(TARGET_COUNT_MAX):
        health.failed(number, 0.0)
    assert health.state(KEY, 0.0) == "closed"
    assert len(health._targets) == TARGET_COUNT_MAX


class Circuit(RuleBasedStateMachine):
    """Whatever happens, a circuit is open for a bounded time, and one call probes it."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now_s = 0.0
        self.probe_count = 0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        if seconds > PROBE_S_MAX:
            self.probe_count = 0

    @rule()
    def begin(self) -> None:
        if self.health.state(KEY, self.now_s) == "half_open":
            self.probe_count += 1
            self.health.began(KEY, self.now_s)
            assert self.health.state(KEY, self.now_s) == "open"

    @rule(cooldown_s=st.none() | st.floats(0, 1e6))
    def fail(self, cooldown_s: float | None) -> None:
        self.health.failed(KEY, self.now_s, cooldown_s=cooldown_s)

    @rule()
    def succeed(self) -> None:
        self.health.succeeded(KEY, self.now_s, latency_s=0.1, is_streamed=True)
        assert self.health.state(KEY, self.now_s) == "closed"

    @rule()
    def leave(self) -> None:
        self.health.ended(KEY)

    @invariant()
    def it_is_not_open_for_ever(self) -> None:
        assert self.health.open_until_s(KEY) <= self.now_s + COOLDOWN_S_MAX
        later_s = self.now_s + COOLDOWN_S_MAX + PROBE_S_MAX + 1
        assert self.health.state(KEY, later_s) != "open"


TestCircuit = Circuit.TestCase
