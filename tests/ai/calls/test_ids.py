from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.calls.ids import new_id

TIMES = st.integers(0, 2**48 * 1_000_000 - 1)


@given(TIMES, st.integers(0, 10**12))
def test_what_begins_later_sorts_behind(now_ns: int, later_ns: int) -> None:
    first, second = new_id(now_ns), new_id(min(now_ns + 1_000 + later_ns, 2**48 * 1_000_000 - 1))
    assert (first.version, first.variant) == (7, RFC_4122)
    assert first.int >> 80 == now_ns // 1_000_000
    assert first.bytes[:8] <= second.bytes[:8]


@given(TIMES)
def test_two_of_one_moment_are_not_the_same(now_ns: int) -> None:
    assert new_id(now_ns) != new_id(now_ns)
