from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit, LogicalMessage
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.ingest.rereading import Log
from butterbase.projections.runner import ProjectionRunner

LOG = Log("", "", ())


class Wanting:
    """Wants the commits that say so."""

    name = "wanting"
    tables = ()

    def wants(self, commit: Commit) -> bool:
        return bool(commit.changes)

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        raise AssertionError("nothing is applied here")

    async def resync(self, conn: AsyncConnection) -> None: ...

    async def rebuild(self, conn: AsyncConnection) -> None: ...


def commit(lsn: int, *, wanted: bool) -> Commit:
    changes = (LogicalMessage("wanted", b""),) if wanted else ()
    return Commit(lsn=LSN(lsn), at=datetime(2026, 1, 1, tzinfo=UTC), xid=1, changes=changes)


async def test_nothing_is_held_back_while_nothing_waits() -> None:
    runner = ProjectionRunner(Wanting(), LOG)
    await runner.deliver(commit(100, wanted=False))
    assert runner.position() is None


async def test_the_position_is_that_of_the_commit_before_the_first_that_waits() -> None:
    runner = ProjectionRunner(Wanting(), LOG)
    await runner.deliver(commit(100, wanted=True))
    assert runner.position() == ZERO
    other = ProjectionRunner(Wanting(), LOG)
    await other.deliver(commit(100, wanted=False))
    await other.deliver(commit(200, wanted=True))
    await other.deliver(commit(300, wanted=True))
    # Not 199: that lies inside the record of the commit, which would not be sent again.
    assert other.position() == 100
