"""What a process may have the host do in its time."""

from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.functions.runtime.budget import WINDOW_S, WORK_MAX, WorkBudget
from butterbase.api.functions.runtime.frames import Frame, FrameType


def test_within_its_budget_nothing_waits() -> None:
    budget = WorkBudget(0.0)
    for _ in range(WORK_MAX):
        budget.spend(Frame(FrameType.CREDIT, 1))
    assert budget.pause_s(0.0) == 0


def test_what_is_more_waits_for_as_long_as_it_is_worth() -> None:
    budget = WorkBudget(0.0)
    for _ in range(10 * WORK_MAX):
        budget.spend(Frame(FrameType.PONG, 0))
    assert budget.pause_s(0.4) == 10 * WINDOW_S - 0.4
    assert budget.pause_s(1.0) == 0


def test_json_costs_what_it_takes_to_read_and_bodies_are_cheap() -> None:
    json, bodies = WorkBudget(0.0), WorkBudget(0.0)
    for _ in range(10):
        json.spend(Frame(FrameType.OPERATION, 2, bytes(1024**2)))
        bodies.spend(Frame(FrameType.DATA, 1, bytes(64 * 1024)))
    assert json.pause_s(0.0) > 0.5
    assert bodies.pause_s(0.0) == 0


def test_reads_count_though_no_frame_is_whole() -> None:
    budget = WorkBudget(0.0)
    for _ in range(2 * WORK_MAX):
        budget.read()
    assert budget.pause_s(0.0) == 2 * WINDOW_S


@given(st.lists(st.integers(0, 3 * WORK_MAX), max_size=20))
def test_over_time_there_is_no_more_work_than_the_time_is_worth(bursts: list[int]) -> None:
    budget, now_s = WorkBudget(0.0), 0.0
    for burst in bursts:
        for _ in range(burst):
            budget.read()
        now_s += budget.pause_s(now_s)
    assert sum(bursts) <= WORK_MAX * (now_s / WINDOW_S + 1) + 1e-6
