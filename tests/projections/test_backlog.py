"""What waits, what is read again, and what may be acknowledged meanwhile."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from butterbase.ingest.changes import Commit, LogicalMessage
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.projections.backlog import Backlog, Limits, Missed

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
TWO = Limits(change_count_max=2, batch_change_count_max=2)


def at(lsn: int) -> datetime:
    return BEGINNING + timedelta(seconds=lsn)


def commit(lsn: int, change_count: int = 1) -> Commit:
    changes = (LogicalMessage("wanted", b""),) * change_count
    return Commit(LSN(lsn), at(lsn), 1, changes)


def backlog_of(*lsns: int, limits: Limits = TWO) -> Backlog:
    backlog = Backlog(limits)
    for lsn in lsns:
        backlog.take(commit(lsn), is_wanted=True)
    return backlog


def lsns(commits: Sequence[Commit]) -> list[int]:
    return [commit.lsn for commit in commits]


def apply_all(backlog: Backlog) -> None:
    while batch := backlog.batch():
        backlog.forget(batch)


def test_what_comes_past_the_limit_is_read_again_once_the_rest_is_applied() -> None:
    backlog = backlog_of(100, 200, 300, 400)
    assert lsns(backlog.batch()) == [100, 200]
    assert backlog.is_behind
    assert backlog.missed() is None
    apply_all(backlog)
    assert backlog.missed() == Missed(LSN(200), LSN(400), at(300))
    assert backlog.batch() == ()


def test_unwanted_commits_take_no_room_and_are_not_missed() -> None:
    backlog = Backlog(TWO)
    for lsn in range(100, 1000, 100):
        backlog.take(commit(lsn), is_wanted=False)
    assert (backlog.position, backlog.since, backlog.is_behind) == (None, None, False)


def test_what_comes_while_the_log_is_read_again_waits_behind_it() -> None:
    backlog = backlog_of(100, 200, 300)
    apply_all(backlog)
    missed = backlog.missed()
    backlog.take(commit(400), is_wanted=True)
    assert backlog.batch() == ()
    assert backlog.missed() == missed
    backlog.read_again(LSN(300), at(300))
    assert backlog.missed() is None
    assert lsns(backlog.batch()) == [400]


def test_more_may_be_missed_while_the_log_is_read_again() -> None:
    backlog = backlog_of(100, 200, 300)
    apply_all(backlog)
    assert backlog.missed() == Missed(LSN(200), LSN(300), at(300))
    for lsn in (400, 500, 600, 700):
        backlog.take(commit(lsn), is_wanted=True)
    backlog.read_again(LSN(300), at(300))
    assert lsns(backlog.batch()) == [400, 500]
    apply_all(backlog)
    assert backlog.missed() == Missed(LSN(500), LSN(700), at(600))


def test_reading_again_goes_on_where_it_broke_off() -> None:
    backlog = backlog_of(100, 200, 300, 400)
    apply_all(backlog)
    backlog.missed()
    backlog.read_again(LSN(300), at(300))
    assert backlog.missed() == Missed(LSN(300), LSN(400), at(300))


def test_the_position_never_passes_what_is_not_applied() -> None:
    backlog = backlog_of(100, 200, 300)
    assert backlog.position == ZERO
    apply_all(backlog)
    assert backlog.position == 200
    backlog.missed()
    backlog.take(commit(400), is_wanted=True)
    assert backlog.position == 200
    backlog.read_again(LSN(250), None)
    assert backlog.position == 250
    backlog.read_again(LSN(300), at(300))
    assert backlog.position == 300
    apply_all(backlog)
    assert backlog.position is None


def test_a_commit_larger_than_the_limit_is_taken_by_itself() -> None:
    backlog = Backlog(TWO)
    backlog.take(commit(100, change_count=10), is_wanted=True)
    backlog.take(commit(200), is_wanted=True)
    assert lsns(backlog.batch()) == [100]
    apply_all(backlog)
    assert backlog.missed() == Missed(LSN(100), LSN(200), at(200))


def test_the_oldest_commit_that_waits_tells_the_lag() -> None:
    backlog = backlog_of(100, 200, 300)
    assert backlog.since == at(100)
    apply_all(backlog)
    assert backlog.since == at(300)


def test_counts_are_of_what_waits() -> None:
    backlog = backlog_of(100, 200, 300)
    assert backlog.waiting_change_count == 2
    apply_all(backlog)
    assert (backlog.waiting_change_count, backlog.waiting_bytes) == (0, 0)


def test_what_was_applied_by_another_process_takes_no_room() -> None:
    backlog = Backlog(TWO)
    backlog.cover(LSN(300))
    for lsn in range(100, 600, 100):
        backlog.take(commit(lsn), is_wanted=True)
    assert lsns(backlog.batch()) == [400, 500]
    assert not backlog.is_behind
    assert backlog.position == 300


def test_what_waits_already_is_let_go_when_it_was_applied() -> None:
    backlog = backlog_of(100, 200, 300, 400)
    backlog.cover(LSN(100))
    assert lsns(backlog.batch()) == [200]
    assert backlog.waiting_change_count == 1
    backlog.cover(LSN(300))
    assert backlog.batch() == []
    assert backlog.missed() == Missed(LSN(300), LSN(400), at(300))
    backlog.cover(LSN(350))
    assert backlog.position == 350
    backlog.cover(LSN(500))
    assert not backlog.is_behind
    assert backlog.missed() is None


def test_all_that_was_missed_may_have_been_applied() -> None:
    backlog = backlog_of(100, 200, 300, 400)
    backlog.cover(LSN(400))
    assert (backlog.missed(), backlog.position, backlog.is_behind) == (None, None, False)
    backlog.take(commit(500), is_wanted=True)
    assert lsns(backlog.batch()) == [500]
