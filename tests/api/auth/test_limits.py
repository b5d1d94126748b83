import asyncio

from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits
from butterbase.api.auth.config import Limit
from butterbase.api.auth.errors import OverRequestRateLimitError
from tests.api.auth.conftest import NOW_S

TWO = Limit(count=6, per_s=60, burst=2)


async def taken(app: AppRuntime, key: str, now_s: float, limit: Limit = TWO) -> float:
    """Seconds to wait; 0 when one was taken."""
    try:
        await limits.take(app, key, limit, now_s=now_s)
    except OverRequestRateLimitError as error:
        return error.retry_after_s
    return 0


async def test_a_burst_then_one_at_a_time(runtime: AppRuntime) -> None:
    assert [await taken(runtime, "k", NOW_S) for _ in range(3)] == [0, 0, 10]
    assert [await taken(runtime, "k", NOW_S + 10) for _ in range(2)] == [0, 10]
    assert await taken(runtime, "k", NOW_S + 14) == 6
    assert [await taken(runtime, "k", NOW_S + 1000) for _ in range(3)] == [0, 0, 10]


async def test_being_refused_does_not_make_the_wait_longer(runtime: AppRuntime) -> None:
    for _ in range(2):
        await taken(runtime, "k", NOW_S)
    assert {await taken(runtime, "k", NOW_S + 1) for _ in range(50)} == {9}
    assert await taken(runtime, "k", NOW_S + 10) == 0


async def test_one_key_does_not_slow_another(runtime: AppRuntime) -> None:
    for _ in range(5):
        await taken(runtime, "a", NOW_S)
    assert await taken(runtime, "b", NOW_S) == 0


async def test_those_at_once_do_not_take_more_than_there_is(runtime: AppRuntime) -> None:
    waits = await asyncio.gather(*(taken(runtime, "k", NOW_S) for _ in range(30)))
    assert waits.count(0) == TWO.burst


async def test_a_limit_that_was_made_stricter_holds_at_once(runtime: AppRuntime) -> None:
    generous = Limit(count=1000, per_s=1, burst=1000)
    for _ in range(500):
        await taken(runtime, "k", NOW_S, generous)
    assert await taken(runtime, "k", NOW_S, Limit(count=1, per_s=60, burst=1)) > 0


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_make_different_keys(one: list[str], other: list[str]) -> None:
    assert (limits.key("k", *one) == limits.key("k", *other)) is (one == other)


def test_a_key_tells_nothing_and_has_one_length() -> None:
    short, long = limits.key("signin", "::1", "a@b.c"), limits.key("signin", "::1", "a" * 10_000)
    assert len(short) == len(long) < 60
    assert "a@b.c" not in short
