import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.errors import InvalidRangeError
from butterbase.api.rest.request.ranges import (
    ALL,
    NONE,
    ROW_COUNT_MAX,
    content_range,
    range_of,
    range_status,
    requested_range,
)
from butterbase.api.rest.request.syntax import Range

NEGATIVE = "Limit should be greater than or equal to zero."
REVERSED = (
    "The lower boundary must be lower than or equal to the upper boundary in the Range header."
)


def requested(limit: str | None, offset: str | None, header: str | None) -> Range:
    return requested_range((((), range_of(limit, offset)),), header)


@pytest.mark.parametrize(
    ("limit", "offset", "range_"),
    [
        (None, None, ALL),
        ("3", None, Range(0, 2)),
        (None, "3", Range(3)),
        ("3", "5", Range(5, 7)),
        (" 3 ", "x", Range(0, 2)),
        ("x", None, ALL),
        ("", "3", Range(3, 2)),
        ("0", None, NONE),
        ("0x10", None, ALL),
        ("3", "-5", Range(-5, -3)),
        ("9" * 30, "9" * 5000, Range(ROW_COUNT_MAX, 2 * ROW_COUNT_MAX - 1)),
    ],
)
def test_limit_and_offset_make_a_range(
    limit: str | None, offset: str | None, range_: Range
) -> None:
    assert range_of(limit, offset) == range_


@pytest.mark.parametrize(
    ("limit", "offset", "header", "range_"),
    [
        (None, None, None, ALL),
        (None, None, "0-9", Range(0, 9)),
        (None, None, "5-", Range(5)),
        (None, None, "items=0-9", ALL),
        (None, None, "-5", ALL),
        ("5", None, "0-9", Range(0, 4)),
        ("50", "5", "0-9", Range(5, 9)),
        (None, "-5", None, ALL),
        ("0", None, None, NONE),
        ("0", None, "5-3", NONE),
    ],
)
def test_the_header_narrows_the_range(
    limit: str | None, offset: str | None, header: str | None, range_: Range
) -> None:
    assert requested(limit, offset, header) == range_


def test_the_ranges_of_other_levels_say_nothing_of_the_root() -> None:
    assert requested_range(((("clients",), Range(0, 0)),), None) == ALL


@pytest.mark.parametrize(
    ("limit", "offset", "header", "details"),
    [
        ("-1", None, None, NEGATIVE),
        ("0", "5", None, NEGATIVE),
        ("3", "-5", None, NEGATIVE),
        ("5", None, "10-20", NEGATIVE),
        (None, None, "5-3", REVERSED),
        ("-1", None, "5-3", REVERSED),
    ],
)
def test_an_empty_range_is_refused(
    limit: str | None, offset: str | None, header: str | None, details: str
) -> None:
    with pytest.raises(InvalidRangeError) as refused:
        requested(limit, offset, header)
    assert refused.value.details == details
    assert refused.value.message == "Requested range not satisfiable"


def test_no_rows_have_a_limit_of_zero() -> None:
    assert NONE.limit == 0
    assert ALL.limit is None
    assert Range(5, 9).limit == 5


NUMBERS = st.none() | st.integers().map(str) | st.text()


@given(NUMBERS, NUMBERS, NUMBERS | st.builds("{}-{}".format, st.integers(0), st.integers(0)))
def test_a_range_that_is_not_refused_is_within_the_table(
    limit: str | None, offset: str | None, header: str | None
) -> None:
    try:
        range_ = requested(limit, offset, header)
    except InvalidRangeError:
        return
    assert range_ == NONE or (
        range_.first >= 0 and (range_.last is None or range_.first <= range_.last)
    )


@pytest.mark.parametrize(
    ("first", "last", "total", "text", "status"),
    [
        (0, 9, None, "0-9/*", 200),
        (0, -1, None, "*/*", 200),
        (0, 9, 10, "0-9/10", 200),
        (0, 9, 11, "0-9/11", 206),
        (5, 9, 10, "5-9/10", 206),
        (10, 9, 10, "*/10", 206),
        (11, 10, 10, "*/10", 416),
        (0, -1, 0, "*/0", 200),
        (1, 0, 0, "*/0", 416),
    ],
)
def test_an_answer_tells_its_rows_of_how_many(
    first: int, last: int, total: int | None, text: str, status: int
) -> None:
    assert content_range(first, last, total) == text
    assert range_status(first, last, total) == status
