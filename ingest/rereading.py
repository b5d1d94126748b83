"""Reads a part of the log once more, beside the consumer of its slot.

A slot keeps the log for its slowest reader. What that one had no room for is not kept by us: it is
read again, through a copy of the slot that belongs to the connection and goes with it. So a reader
that is behind costs neither memory nor disk of ours, and no other reader's time.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
"""

import tempfile
from collections.abc import AsyncGenerator, Sequence
from typing import IO

from msgspec import Struct

from butterbase.ingest.assembler import Assembler
from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.ingest.settings import ConsumerSettings
from butterbase.ingest.stream import ReplicationStream


class Log(Struct, frozen=True):
    """One database's log: where it is, and what is told of it."""

    dsn: str
    slot: str
    publications: tuple[str, ...]


class Part(Struct, frozen=True):
    """What was read at once: all commits behind the part before, up to `position`."""

    commits: Sequence[Commit]
    position: LSN


async def reread(
    log: Log, *, after: LSN, until: LSN, settings: ConsumerSettings | None = None
) -> AsyncGenerator[Part, None]:
    """The commits with `after` < LSN <= `until`, which the slot still keeps. Read no faster than
    asked for. Close it (contextlib.aclosing): it has a connection and a slot.

    Raises DatabaseUnavailableError, ReplicationError, SlotError, MalformedMessageError.
    """
    settings = settings or ConsumerSettings()

    def open_file() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=settings.spill_directory)

    position = after
    async with await ReplicationStream.connect(
        log.dsn,
        slot=log.slot,
        publications=log.publications,
        position=lambda: position,
        settings=settings,
        is_copy=True,
    ) as stream:
        assembler = Assembler(held_bytes_max=settings.held_bytes_max, open_file=open_file)
        while position < until:
            commits = []
            for told in assembler.feed(await stream.read()):
                if isinstance(told, Commit):
                    if after < told.lsn <= until:
                        commits.append(told)
                    told = told.lsn
                position = max(position, min(told, until))
            yield Part(commits, position)
            stream.nudge()
