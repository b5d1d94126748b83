"""A rate, against a list of when something happened."""

from hypothesis import given
from hypothesis import strategies as st

from butterbase.realtime.session.rates import FULL, Bucket, Rate, take

RATE = Rate(5, 10.0)


def times(bucket: Bucket, now_s: float) -> tuple[Bucket, int]:
    """Take as often as it goes."""
    count = 0
    while (after := take(bucket, RATE, now_s)) is not None:
        bucket, count = after, count + 1
    return bucket, count


def test_so_many_go_at_once_and_come_back_with_time() -> None:
    bucket, count = times(FULL, 100.0)
    assert count == 5
    assert times(bucket, 101.9)[1] == 0
    assert times(bucket, 102.0)[1] == 1
    assert times(bucket, 1000.0)[1] == 5


def test_several_are_taken_together_or_not_at_all() -> None:
    assert take(FULL, RATE, 0.0, count=6) is None
    bucket = take(FULL, RATE, 0.0, count=4)
    assert bucket is not None
    assert take(bucket, RATE, 0.0, count=2) is None
    assert take(bucket, RATE, 0.0) is not None


def test_a_clock_that_is_set_back_makes_it_wait_and_not_fail() -> None:
    bucket, _ = times(FULL, 100.0)
    assert take(bucket, RATE, 50.0) is None
    assert take(bucket, RATE, 103.0) is not None


@given(st.lists(st.floats(0, 100), max_size=100))
def test_no_window_has_more_than_two_fillings(moments: list[float]) -> None:
    bucket, taken = FULL, []
    for now_s in sorted(moments):
        after = take(bucket, RATE, now_s)
        if after is not None:
            bucket = after
            taken.append(now_s)
    for start in taken:
        assert sum(start <= at < start + RATE.window_s for at in taken) <= 2 * RATE.count_max
