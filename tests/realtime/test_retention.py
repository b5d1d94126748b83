"""What a stream that begins knows of what is gone, and when the log is let go."""

from datetime import UTC, datetime
from typing import Any

import pytest

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, format_lsn
from butterbase.ingest.snapshots import parse_snapshot
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.floors import Kept
from butterbase.realtime.window.position import ChangePosition, ReadPosition
from butterbase.realtime.window.replay import Floor, ReplayWindow, WindowLimits
from butterbase.realtime.window.retention import IDLE_BYTES, Retention
from butterbase.sql.errors import DatabaseUnavailableError

OLD, NEW = parse_snapshot("10:10:"), parse_snapshot("99:99:")


class Postgres:
    """Answers where it is, as an executor does."""

    def __init__(self, lsn: int) -> None:
        self.lsn = LSN(lsn)
        self.snapshot = NEW

    async def run(self, *_: Any) -> "list[Postgres]":
        return [self]

    def rows(self) -> list[list[bytes]]:
        return [[format_lsn(self.lsn).encode(), str(self.snapshot).encode()]]


class Table:
    """butterbase.floors."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept = kept
        self.is_away = False

    async def read(self) -> Kept | None:
        return self.kept

    async def keep(self, kept: Kept) -> None:
        if self.is_away:
            raise DatabaseUnavailableError
        self.kept = kept


class Stream:
    def __init__(self, kept: Kept | None = None, *, wal_lsn: int = 10_000) -> None:
        self.table = Table(kept)
        self.postgres = Postgres(wal_lsn)
        self.window = ReplayWindow(WindowLimits(0.0, 2**40, 2**40), ["public"])
        self.retention = Retention(
            self.window,
            self.postgres,  # type: ignore[arg-type]  # all that is asked of an executor
            RealtimeSettings(replay_age_s=0.0),
            self.table,
        )

    def commit(self, lsn: int) -> None:
        self.window.add(Commit(LSN(lsn), datetime.now(UTC), 50, ()), 0.0)
        self.retention.advance(LSN(lsn))

    def knows(self, position: ChangePosition | ReadPosition) -> bool:
        return self.window.place_of(position) is not None


KEPT = Kept(Floor(LSN(500), 3, OLD), LSN(2000))
READ_BEFORE = ReadPosition(LSN(700), OLD)


@pytest.mark.parametrize("confirmed", [500, 1000, 2000])
async def test_a_stream_that_begins_again_knows_what_it_knew(confirmed: int) -> None:
    stream = Stream(KEPT)
    await stream.retention.begin(LSN(confirmed))
    assert stream.retention.held_at == 2000
    assert stream.knows(ChangePosition(LSN(500), 3))
    assert not stream.knows(ChangePosition(LSN(500), 2))
    assert stream.knows(READ_BEFORE)


async def test_what_comes_again_is_not_gone() -> None:
    stream = Stream(KEPT)
    await stream.retention.begin(LSN(400))
    assert stream.knows(ChangePosition(LSN(400)))
    assert not stream.knows(ChangePosition(LSN(300)))
    assert stream.knows(READ_BEFORE)


@pytest.mark.parametrize(
    ("kept", "confirmed", "wal_lsn"),
    [(None, 1000, 10_000), (KEPT, 2001, 10_000), (KEPT, 1000, 1500)],
    ids=["a new slot", "acknowledged by others", "restored on another server"],
)
async def test_where_nothing_is_known_nothing_before_is(
    kept: Kept | None, confirmed: int, wal_lsn: int
) -> None:
    stream = Stream(kept, wal_lsn=wal_lsn)
    await stream.retention.begin(LSN(confirmed))
    assert stream.retention.held_at == confirmed
    assert stream.knows(ChangePosition(LSN(confirmed)))
    assert not stream.knows(ChangePosition(LSN(confirmed - 1)))
    assert not stream.knows(READ_BEFORE)
    assert stream.knows(ReadPosition(LSN(wal_lsn), NEW))
    assert stream.table.kept == Kept(Floor(LSN(confirmed), None, NEW), LSN(confirmed))


async def test_the_log_is_let_go_once_that_is_kept() -> None:
    stream = Stream()
    await stream.retention.begin(LSN(1000))
    stream.commit(1100)
    stream.table.is_away = True
    with pytest.raises(DatabaseUnavailableError):
        await stream.retention.release()
    assert stream.retention.held_at == 1000
    stream.table.is_away = False
    await stream.retention.release()
    assert stream.retention.held_at == 1100
    assert stream.table.kept == Kept(Floor(LSN(1100), 0, NEW), LSN(1100))


async def test_log_of_others_is_let_go_in_steps() -> None:
    stream = Stream(wal_lsn=2**40)
    await stream.retention.begin(LSN(1000))
    stream.retention.advance(LSN(1000 + IDLE_BYTES - 1))
    await stream.retention.release()
    assert stream.retention.held_at == 1000
    stream.retention.advance(LSN(1000 + IDLE_BYTES))
    await stream.retention.release()
    assert stream.retention.held_at == 1000 + IDLE_BYTES
    assert stream.knows(ChangePosition(LSN(1000))), "no commit lies between"


async def test_nothing_is_let_go_that_some_read_may_not_have_seen() -> None:
    stream = Stream()
    await stream.retention.begin(LSN(1000))
    stream.commit(1100)
    stream.postgres.snapshot = parse_snapshot("50:99:50")
    await stream.retention.release()
    assert stream.retention.held_at == 1000
    stream.postgres.snapshot = parse_snapshot("100:100:")
    await stream.retention.release()
    assert stream.retention.held_at == 1100
