"""When cron triggers are due, and what comes of the times that were."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from butterbase.api.functions.errors import InvalidTriggerError
from butterbase.api.functions.work.backoff import LONGEST_S, delay_s
from butterbase.api.functions.work.schedule import last_due, parse_schedule
from butterbase.api.functions.work.ticks import ON_TIME, judge

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def times(text: str, zone: str, after: datetime, until: datetime) -> list[str]:
    """As they come forwards, which is how they are found backwards."""
    schedule = parse_schedule(text, zone)
    found = []
    at = schedule.after(after)
    while at is not None and at <= until:
        found.append(at)
        at = schedule.after(at)
    assert last_due(schedule, after, until, count_max=100) == (found, 0)
    return [f"{at:%m-%d %H:%M}" for at in found]


def test_five_fields_are_read_in_their_time_zone() -> None:
    found = times("30 9 * * 1-5", "Europe/Berlin", NOON, NOON + timedelta(days=3))
    assert found == ["03-02 08:30", "03-03 08:30", "03-04 08:30"]


def test_where_clocks_go_forward_a_time_that_is_left_out_is_due_right_after() -> None:
    night = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    found = times("30 2 * * *", "Europe/Berlin", night, night + timedelta(days=2))
    assert found == ["03-29 01:00", "03-30 00:30"]


def test_where_clocks_go_back_a_time_is_due_once() -> None:
    night = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
    found = times("30 2 * * *", "Europe/Berlin", night, night + timedelta(days=2))
    assert found == ["10-25 00:30", "10-26 01:30"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@hourly", ["03-01 13:00", "03-01 14:00"]),
        ("@every 45m", ["03-01 12:45", "03-01 13:30"]),
        ("@every 1h30m", ["03-01 13:30"]),
        ("*/40 * * * *", ["03-01 12:40", "03-01 13:00", "03-01 13:40", "03-01 14:00"]),
    ],
)
def test_nicknames_and_periods(text: str, expected: list[str]) -> None:
    assert times(text, "UTC", NOON, NOON + timedelta(hours=2)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "@reboot", "@every", "@every 1x", "a b c d e"],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidTriggerError):
        parse_schedule(text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_schedule_or_refused(text: str, zone: str) -> None:
    try:
        schedule = parse_schedule(text, zone)
    except InvalidTriggerError:
        return
    following = schedule.after(NOON)
    assert following is None or following > NOON


@given(st.integers(1, 10_000), st.integers(0, 100_000))
def test_a_period_is_the_same_for_whoever_asks(period_s: int, offset_s: int) -> None:
    schedule = parse_schedule(f"@every {period_s}s")
    at = NOON + timedelta(seconds=offset_s)
    first = schedule.after(at)
    assert first is not None
    assert timedelta(0) < first - at <= timedelta(seconds=period_s)
    assert schedule.after(first - timedelta(microseconds=1)) == first


@given(st.integers(0, 3 * 24 * 3600), st.integers(0, 3 * 24 * 3600))
@example(0, 89_940)  # ends in the first of two hours of the same name
@example(0, 90_000)
def test_backwards_the_times_are_those_of_forwards(start_s: int, length_s: int) -> None:
    night = datetime(2026, 10, 24, 0, 0, tzinfo=UTC) + timedelta(seconds=start_s)
    times("*/30 1-4 * * *", "Europe/Berlin", night, night + timedelta(seconds=length_s))


def test_of_many_times_the_last_ones_are_told_and_the_others_counted() -> None:
    schedule = parse_schedule("@every 1s")
    found, left_out = last_due(schedule, NOON, NOON + timedelta(seconds=1000), count_max=100)
    assert (len(found), left_out) == (100, 900)
    assert found[-1] == NOON + timedelta(seconds=1000)


TICKS = [NOON - timedelta(minutes=minutes) for minutes in (30, 20, 10)]


@pytest.mark.parametrize(
    ("catch_up", "last", "expected"),
    [
        ("none", timedelta(0), ["missed", "missed", "missed", "queued"]),
        ("none", ON_TIME + timedelta(seconds=1), ["missed"] * 4),
        ("last", timedelta(minutes=5), ["missed", "missed", "missed", "queued"]),
        ("all", timedelta(minutes=5), ["queued"] * 4),
    ],
)
def test_times_that_nobody_was_there_for(
    catch_up: str, last: timedelta, expected: list[str]
) -> None:
    judged = judge([*TICKS, NOON - last], NOON, catch_up)  # type: ignore[arg-type]
    assert [tick.status for tick in judged] == expected


@given(st.integers(1, 100), st.floats(0, 1))
def test_the_delay_grows_and_ends(attempt: int, chance: float) -> None:
    found = delay_s(attempt, chance)
    assert 0.5 <= found <= LONGEST_S
    assert delay_s(attempt + 1, chance) >= found
