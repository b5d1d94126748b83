"""In which order the targets of a chain are called; without IO, time and chance are arguments."""

import math
from collections.abc import Callable, Sequence

from butterbase.ai.routing.config import Strategy
from butterbase.ai.routing.health import Health
from butterbase.ai.routing.resolution import Target

_EXPLORED = 0.05
"""Of the calls with the strategy `latency`, the part that goes to another target first, so that one
that has become faster is noticed."""


def plan(
    targets: Sequence[Target],
    strategy: Strategy,
    *,
    health: Health,
    owner: str,
    now_s: float,
    cost: Callable[[Target], int],
    random: Callable[[], float],
    is_streamed: bool = False,
) -> tuple[Target, ...]:
    """All of the targets: those that work by the strategy, then those with an open circuit, by
    when it closes.

    `owner` is whose keys are used: what is known of targets is kept apart by it. `random` answers
    numbers from 0 up to 1.
    """
    if len(targets) == 1:
        return tuple(targets)
    ordered = list(targets)
    if strategy == "weighted":
        ordered = _by_weight(targets, random)
    elif strategy == "latency":
        ordered = _by_latency(targets, health, owner, now_s, random, is_streamed=is_streamed)
    elif strategy == "cost":
        ordered.sort(key=cost)
    open_ = [t for t in ordered if health.state((owner, *t.key), now_s) == "open"]
    if open_:
        ordered = [target for target in ordered if target not in open_]
        ordered += sorted(open_, key=lambda t: health.open_until_s((owner, *t.key)))
    return tuple(ordered)


def _by_weight(targets: Sequence[Target], random: Callable[[], float]) -> list[Target]:
    """Drawn one after another, each with a chance in proportion to its weight.

    Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006.
    """

    def place(target: Target) -> float:
        # 1 - random() is above zero.
        return math.log(1 - random()) / target.weight if target.weight else -math.inf

    return sorted(targets, key=place, reverse=True)


def _by_latency(
    targets: Sequence[Target],
    health: Health,
    owner: str,
    now_s: float,
    random: Callable[[], float],
    *,
    is_streamed: bool,
) -> list[Target]:
    """The fastest first; before them those of which nothing is known."""

    def latency(target: Target) -> float:
        return health.latency_s((owner, *target.key), now_s, is_streamed=is_streamed) or 0.0

    ordered = sorted(targets, key=latency)
    if random() < _EXPLORED:
        ordered.insert(0, ordered.pop(1 + int(random() * (len(ordered) - 1))))
    return ordered
