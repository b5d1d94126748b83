"""What a projection is: a reader of commits that keeps tables of its own."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit, QualifiedName


class Projection(Protocol):
    """Rows derived from the log, and from tables whose changes the log tells.

    The runner calls `apply` inside a transaction that also advances the checkpoint, so what it
    writes to `conn` exists exactly as often as the commit: once. It writes nothing elsewhere.
    """

    @property
    def name(self) -> str:
        """Stable: the checkpoint is kept under it."""
        ...

    @property
    def tables(self) -> Sequence[QualifiedName]:
        """What it writes."""
        ...

    def wants(self, commit: Commit) -> bool:
        """Whether `apply` would do anything; an unwanted commit costs no transaction."""
        ...

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        """Write what these commits, in order, change in the projection's tables."""
        ...

    async def resync(self, conn: AsyncConnection) -> None:
        """Make the rows what the sources have come to, after a part of the log was lost.

        `conn` is in a transaction that sees one snapshot of all tables, and keeps others from
        writing to the projection's.
        """
        ...

    async def rebuild(self, conn: AsyncConnection) -> None:
        """The same without trust in the rows that are there."""
        ...


@runtime_checkable
class LogProjection(Projection, Protocol):
    """One whose rows follow from the log alone, and cannot be had from tables.

    It begins where its slot does, with every commit that the log tells.
    """

    async def note_gap(self, conn: AsyncConnection) -> None:
        """A part of the log was lost, and with it what would have followed from it."""
        ...
