"""In which order targets are called."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.routing.config import Strategy
from butterbase.ai.routing.health import COOLDOWN_S, FAILURE_COUNT_MAX, Health
from butterbase.ai.routing.planning import plan
from butterbase.ai.routing.resolution import Target
from tests.ai.routing.targets import target

APP = "app"


def planned(
    targets: Sequence[Target],
    strategy: Strategy = "ordered",
    *,
    health: Health | None = None,
    now_s: float = 0.0,
    costs: Sequence[int] = (),
    chance: float | random.Random = 0.5,
    is_streamed: bool = False,
) -> list[str]:
    found = plan(
        targets,
        strategy,
        health=health or Health(),
        owner=APP,
        now_s=now_s,
        cost=lambda target: costs[list(targets).index(target)],
        random=chance.random if isinstance(chance, random.Random) else lambda: chance,
        is_streamed=is_streamed,
    )
    return [target.provider.name for target in found]


def open_circuit(health: Health, of: Target, *, at_s: float = 0.0) -> None:
    for _ in range(FAILURE_COUNT_MAX):
        health.failed((APP, *of.key), at_s)


ABC = [target("a"), target("b"), target("c")]


def test_ordered_keeps_the_order() -> None:
    assert planned(ABC) == ["a", "b", "c"]


def test_weights_are_chances_to_be_first() -> None:
    targets = [target("a", weight=8), target("b", weight=2), target("c", weight=0)]
    chance = random.Random(5)  # noqa: S311  # repeatable
    plans = [planned(targets, "weighted", chance=chance) for _ in range(2000)]
    firsts = Counter(found[0] for found in plans)
    assert 1500 < firsts["a"] < 1700
    assert firsts["c"] == 0
    assert {found[2] for found in plans} == {"c"}


def test_cost_puts_the_cheapest_first() -> None:
    assert planned(ABC, "cost", costs=[3, 1, 2]) == ["b", "c", "a"]


def test_latency_puts_the_fastest_first_and_before_it_the_unknown() -> None:
    health = Health()
    for of, latency_s in ((ABC[0], 0.3), (ABC[1], 0.1)):
        health.succeeded((APP, *of.key), 0.0, latency_s=latency_s, is_streamed=False)
    assert planned(ABC, "latency", health=health) == ["c", "b", "a"]
    health.succeeded((APP, *ABC[2].key), 0.0, latency_s=0.2, is_streamed=False)
    assert planned(ABC, "latency", health=health) == ["b", "c", "a"]


def test_streams_are_compared_with_streams() -> None:
    health = Health()
    for is_streamed, latencies in ((False, (0.1, 0.2, 0.3)), (True, (0.3, 0.2, 0.1))):
        for of, latency_s in zip(ABC, latencies, strict=True):
            key = (APP, *of.key)
            health.succeeded(key, 0.0, latency_s=latency_s, is_streamed=is_streamed)
    assert planned(ABC, "latency", health=health) == ["a", "b", "c"]
    assert planned(ABC, "latency", health=health, is_streamed=True) == ["c", "b", "a"]


def test_latency_tries_another_target_now_and_then() -> None:
    health = Health()
    for of, latency_s in zip(ABC, (0.1, 0.2, 0.3), strict=True):
        health.succeeded((APP, *of.key), 0.0, latency_s=latency_s, is_streamed=False)
    chance = random.Random(5)  # noqa: S311  # repeatable
    plans = [planned(ABC, "latency", health=health, chance=chance) for _ in range(2000)]
    firsts = Counter(found[0] for found in plans)
    assert firsts["a"] > 1800
    assert firsts["b"] > 10
    assert firsts["c"] > 10


def test_a_target_with_an_open_circuit_comes_last_until_its_cooldown_is_over() -> None:
    health = Health()
    open_circuit(health, ABC[0])
    assert planned(ABC, health=health) == ["b", "c", "a"]
    assert planned(ABC, health=health, now_s=COOLDOWN_S) == ["a", "b", "c"]


def test_of_open_circuits_the_one_that_closes_first_is_tried_first() -> None:
    health = Health()
    open_circuit(health, ABC[0], at_s=1.0)
    open_circuit(health, ABC[1], at_s=0.0)
    assert planned(ABC, health=health, now_s=1.0) == ["c", "b", "a"]


def test_what_is_known_of_one_apps_targets_is_nothing_to_another() -> None:
    health = Health()
    for _ in range(FAILURE_COUNT_MAX):
        health.failed(("other", *ABC[0].key), 0.0)
    assert planned(ABC, health=health) == ["a", "b", "c"]


@given(
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    strategy=st.sampled_from(["ordered", "weighted", "latency", "cost"]),
    chance=st.randoms(use_true_random=False),
    failing=st.sets(st.integers(0, 7)),
)
def test_every_target_is_planned_once(
    weights: list[int], strategy: Strategy, chance: random.Random, failing: set[int]
) -> None:
    targets = [target(str(at), weight=weight) for at, weight in enumerate(weights)]
    health = Health()
    for at in failing & set(range(len(targets))):
        open_circuit(health, targets[at])
    found = planned(targets, strategy, health=health, costs=weights, chance=chance)
    assert sorted(found) == sorted(t.provider.name for t in targets)


@pytest.mark.parametrize("strategy", ["ordered", "weighted", "latency", "cost"])
def test_an_only_target_is_called_whatever_its_health(strategy: Strategy) -> None:
    health = Health()
    open_circuit(health, ABC[0])
    assert planned(ABC[:1], strategy, health=health) == ["a"]
