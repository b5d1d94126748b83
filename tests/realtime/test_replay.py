"""The window against a model of Postgres in which a commit is logged first and visible later."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butterbase.ingest.changes import Change, Column, Commit, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import LSN
from butterbase.ingest.snapshots import Snapshot, parse_snapshot
from butterbase.realtime.window.position import ChangePosition, Position, ReadPosition
from butterbase.realtime.window.replay import Floor, ReplayWindow, WindowLimits

AT = datetime.now(UTC)
NOTES, SECRETS = (
    Relation(oid, schema, "notes", ReplicaIdentity.DEFAULT, (Column("id", 20, -1, is_key=True),))
    for oid, schema in ((7, "public"), (8, "auth"))
)
MANY = 10**9
UNLIMITED = WindowLimits(age_s=MANY, log_bytes=MANY, memory_bytes=MANY)


def commit(lsn: int, xid: int = 1, count: int = 1, relation: Relation = NOTES) -> Commit:
    changes: Sequence[Change] = [Insert(relation, (str(n),)) for n in range(count)]
    return Commit(LSN(lsn), AT, xid, tuple(changes))


def window(
    limits: WindowLimits = UNLIMITED, *, lsn: int = 0, snapshot: str = "3:3:"
) -> ReplayWindow:
    made = ReplayWindow(limits, ["public"])
    made.begin(Floor(LSN(lsn), None, parse_snapshot(snapshot)), 0)
    return made


class Postgres:
    """Transaction ids are given out, commits are logged, then seen; the log is read later still."""

    def __init__(self, limits: WindowLimits) -> None:
        self.now_s = 0.0
        self.lsn = 1000
        self.next_xid = 10
        self.running: list[int] = []
        self.logged: list[Commit] = []
        """Not visible yet."""
        self.latest_done = 9
        self.log: list[Commit] = []
        self.delivered_count = 0
        self.positions: list[tuple[Position, set[tuple[LSN, int]]]] = []
        """With the changes that are behind each."""
        self.window = ReplayWindow(limits, ["public"])
        self.window.begin(Floor(LSN(self.lsn), None, self.snapshot()), 0)
        self.floors: list[Floor] = []

    def snapshot(self) -> Snapshot:
        in_progress = [*self.running, *(c.xid for c in self.logged)]
        xmax = self.latest_done + 1
        seen = frozenset(xid for xid in in_progress if xid < xmax)
        return Snapshot(min(seen, default=xmax), xmax, seen)

    def step(self, action: str, choice: int) -> None:
        self.now_s += 1
        for part in SEQUENCES.get(action, (action,)):
            getattr(self, part)(choice)

    def begin(self, _: int) -> None:
        self.running.append(self.next_xid)
        self.next_xid += 1

    def log_one(self, choice: int) -> None:
        if self.running:
            self.lsn += 8 + choice % 50
            xid = self.running.pop(choice % len(self.running))
            made = commit(self.lsn, xid % 2**32, 1 + choice % 3)
            self.log.append(made)
            self.logged.append(made)

    def show(self, choice: int) -> None:
        if self.logged:
            shown = self.logged.pop(choice % len(self.logged))
            self.latest_done = max(self.latest_done, shown.xid)

    def abort(self, choice: int) -> None:
        if self.running:
            xid = self.running.pop(choice % len(self.running))
            self.latest_done = max(self.latest_done, xid)

    def deliver(self, _: int) -> None:
        if self.delivered_count < len(self.log):
            self.window.add(self.log[self.delivered_count], self.now_s)
            self.delivered_count += 1

    def note(self, _: int) -> None:
        self.window.note(self.snapshot(), self.now_s)

    def read(self, _: int) -> None:
        snapshot = self.snapshot()
        unseen = {c.xid for c in self.logged}
        behind = {(c.lsn, n) for c in self.log if c.xid in unseen for n in range(1, 4)}
        self.positions.append((ReadPosition(LSN(self.lsn), snapshot), behind))

    def change(self, choice: int) -> None:
        if not self.delivered_count:
            return
        seen = self.log[choice % self.delivered_count]
        ordinal = 1 + choice % len(seen.changes)
        behind = {
            (c.lsn, n) for c in self.log for n in range(1, 4) if (c.lsn, n) > (seen.lsn, ordinal)
        }
        self.positions.append((ChangePosition(seen.lsn, ordinal), behind))

    def release(self, _: int) -> None:
        floor = self.window.released(self.now_s, LSN(self.lsn))
        if floor is not None:
            unseen = {c.lsn for c in self.log if not floor.snapshot.sees(c.xid)}
            assert not {lsn for lsn in unseen if lsn <= floor.lsn}
            self.floors.append(floor)

    def check(self) -> None:
        for position, behind_then in self.positions:
            place = self.window.place_of(position)
            if place is None:
                continue
            got = {
                (c.lsn, n)
                for at in range(place, self.window.end)
                if (c := self.window.commit_at(at)) is not None
                for n in range(1, len(c.changes) + 1)
                if position.is_before(c.lsn, c.xid, n)
            }
            last = self.window.tail
            wanted = {
                (c.lsn, n)
                for c in self.log
                for n in range(1, len(c.changes) + 1)
                if c.lsn <= last and ((c.lsn, n) in behind_then or self.is_new(position, c))
            }
            assert got == wanted, position

    def is_new(self, position: Position, made: Commit) -> bool:
        """Whether it was logged after the position was taken."""
        return made.lsn > position.lsn


SEQUENCES = {
    "write": ("begin", "log_one", "deliver"),
    "commit": ("begin", "log_one", "show", "deliver"),
    "miss": ("begin", "log_one", "read", "show", "deliver"),
}
ACTIONS = [
    *SEQUENCES,
    "begin",
    "log_one",
    "show",
    "abort",
    "deliver",
    "note",
    "read",
    "change",
    "release",
]
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1000)), max_size=100)
LIMITS = st.builds(
    WindowLimits,
    age_s=st.sampled_from([10.0, 40.0, 10.0**9]),
    log_bytes=st.sampled_from([100, 400, 10**9]),
    memory_bytes=st.sampled_from([2_000, 8_000, 10**9]),
)


@settings(max_examples=300, deadline=None)
@given(LIMITS, STEPS)
def test_what_is_told_again_is_what_was_missed_and_nothing_is_missing(
    limits: WindowLimits, steps: Sequence[tuple[str, int]]
) -> None:
    postgres = Postgres(limits)
    for action, choice in steps:
        postgres.step(action, choice)
        postgres.check()


@settings(max_examples=100, deadline=None)
@given(LIMITS, STEPS)
def test_a_read_that_was_made_just_now_is_never_too_old(
    limits: WindowLimits, steps: Sequence[tuple[str, int]]
) -> None:
    postgres = Postgres(limits)
    for action, choice in steps:
        postgres.step(action, choice)
    for made in postgres.logged:
        postgres.latest_done = max(postgres.latest_done, made.xid)
    postgres.logged = []
    postgres.window.note(postgres.snapshot(), postgres.now_s)
    assert (
        postgres.window.place_of(ReadPosition(LSN(postgres.lsn), postgres.snapshot())) is not None
    )


def test_a_change_position_is_good_as_long_as_what_follows_is_there() -> None:
    held = window(WindowLimits(age_s=10, log_bytes=MANY, memory_bytes=MANY), lsn=100)
    for number, lsn in enumerate((110, 120, 130)):
        held.add(commit(lsn, count=2), number * 8)
    assert held.start == 1, "the first is gone"
    assert held.place_of(ChangePosition(LSN(100))) is None
    assert held.place_of(ChangePosition(LSN(110), 1)) is None
    assert held.place_of(ChangePosition(LSN(110), 2)) == 1
    assert held.place_of(ChangePosition(LSN(110))) == 1
    assert held.place_of(ChangePosition(LSN(120), 1)) == 1
    assert held.place_of(ChangePosition(LSN(120), 2)) == 2
    assert held.place_of(ChangePosition(LSN(130), 2)) == 3
    assert held.place_of(ChangePosition(LSN(200), 7)) == 3


def test_the_last_commit_stays_for_those_who_saw_a_part_of_it() -> None:
    held = window(WindowLimits(age_s=10, log_bytes=10, memory_bytes=1))
    held.add(commit(110, count=3), 0)
    held.trim(10_000)
    assert held.place_of(ChangePosition(LSN(110), 1)) == 0


def test_the_log_is_released_by_age_though_nothing_comes() -> None:
    held = window(WindowLimits(age_s=10, log_bytes=MANY, memory_bytes=MANY), lsn=100)
    held.add(commit(110, xid=5, count=3), 0)
    assert held.released(5, LSN(500)) == Floor(LSN(100), None, parse_snapshot("3:3:"))
    held.note(parse_snapshot("6:6:"), 1)
    assert held.released(10_000, LSN(500)) == Floor(LSN(110), 3, parse_snapshot("6:6:"))


def test_the_log_is_released_by_size_whatever_wrote_it() -> None:
    held = window(WindowLimits(age_s=MANY, log_bytes=1000, memory_bytes=MANY), lsn=100)
    for lsn in (200, 300):
        held.add(commit(lsn, xid=5), 0)
    held.note(parse_snapshot("6:6:"), 0)
    floors = [held.released(1, LSN(end)) for end in (1100, 1200, 1300)]
    assert [floor and floor.lsn for floor in floors] == [100, 200, 300]


def test_a_commit_that_is_not_visible_does_not_age() -> None:
    held = window(WindowLimits(age_s=10, log_bytes=MANY, memory_bytes=MANY), lsn=100)
    held.add(commit(110, xid=5), 0)
    held.note(parse_snapshot("5:7:5"), 1)
    for number in range(3):
        held.add(commit(120 + number, xid=7 + number), 50)
    read = ReadPosition(LSN(115), parse_snapshot("5:7:5"))
    assert held.place_of(read) == 0
    released = held.released(1000, LSN(500))
    assert released is not None
    assert released.lsn == 100
    held.note(parse_snapshot("10:10:"), 51)
    released = held.released(1000, LSN(500))
    assert released is not None
    assert released.lsn == 122
    held.trim(60)
    assert held.place_of(read) is None


def test_a_commit_that_was_too_much_before_it_was_visible_makes_reads_start_anew() -> None:
    held = window(WindowLimits(age_s=MANY, log_bytes=5, memory_bytes=MANY), lsn=100)
    held.add(commit(110, xid=5), 0)
    held.add(commit(120, xid=6), 0)
    held.note(parse_snapshot("5:7:5"), 1)
    assert held.place_of(ReadPosition(LSN(120), parse_snapshot("5:7:5"))) is None
    assert held.released(2, LSN(120)) is None
    held.note(parse_snapshot("7:7:"), 2)
    assert held.place_of(ReadPosition(LSN(120), parse_snapshot("7:7:"))) == 2
    assert held.released(2, LSN(120)) is not None


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (WindowLimits(age_s=MANY, log_bytes=25, memory_bytes=MANY), 3),
        (WindowLimits(age_s=MANY, log_bytes=MANY, memory_bytes=2 * 800), 2),
        (WindowLimits(age_s=3, log_bytes=MANY, memory_bytes=MANY), 4),
    ],
)
def test_each_limit_holds(limits: WindowLimits, kept: int) -> None:
    held = window(limits)
    for number in range(5000):
        held.add(commit(1000 + 10 * number), float(number))
    assert held.end - held.start == kept
    assert held.held_bytes == kept * 800
    assert len(held._entries) < 5000, "what is gone is let go of in between"


def test_changes_that_nobody_can_subscribe_to_are_not_kept() -> None:
    held = window()
    held.add(commit(10, count=100, relation=SECRETS), 0)
    made = held.commit_at(0)
    assert made is not None
    assert made.changes == ()
    assert held.place_of(ChangePosition(LSN(10), 100)) == 1


def test_places_go_on_when_the_window_begins_anew() -> None:
    held = window()
    held.add(commit(10), 0)
    held.begin(Floor(LSN(500), None, parse_snapshot("9:9:")), 1)
    assert (held.start, held.end, held.tail) == (1, 1, 500)
    assert held.commit_at(0) is None
    assert held.place_of(ChangePosition(LSN(10), 1)) is None
    assert held.place_of(ReadPosition(LSN(500), parse_snapshot("8:8:"))) is None
    assert held.place_of(ReadPosition(LSN(500), parse_snapshot("9:9:"))) == 1


def test_a_snapshot_that_was_overtaken_is_not_noted() -> None:
    held = window()
    held.add(commit(10, xid=5), 0)
    held.note(parse_snapshot("6:6:"), 1)
    held.note(parse_snapshot("5:6:5"), 2)
    assert held.is_noted
