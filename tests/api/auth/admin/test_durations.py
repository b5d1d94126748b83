import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.admin.durations import DURATION_S_MAX, parse_duration
from butterbase.api.auth.errors import InvalidAuthBodyError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("1m1s1ms", 61.001),
        ("876600h", 876600 * 3600),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1d", "-1h", "1h ", "1h 30m", "1e3h", "٣h", "99999999999h", "nonsense"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidAuthBodyError):
        parse_duration(text)


@given(st.text(alphabet="0123456789.hmsnuµ -"))
def test_any_text_is_a_bounded_duration_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidAuthBodyError):
        assert 0 <= parse_duration(text) <= DURATION_S_MAX
