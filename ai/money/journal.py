"""Events of calls on their way into the database.

A commit waits for a disk, for milliseconds, and is read and projected by itself, with the rows of
the budgets locked meanwhile. With one for each event, some hundred calls a second would take all
connections, and admissions wait for the projection. So what comes while one statement runs, and a
moment after it, goes together in the next; an event that comes alone is written at once.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from butterbase.projections.usage import AiCall, encode_call
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("money")

BATCH_COUNT_MAX = 500
"""Events of one statement."""

PAUSE_S = 0.02
"""From the end of one statement to the next; as much may be lost beside if the worker is killed."""


class Settlement(Struct, frozen=True):
    """How a call ended."""

    call_id: UUID
    app_id: str
    role: str
    user_id: UUID | None
    request_id: str
    call: AiCall


class _Row(Struct, frozen=True):
    """Of the statement's recordset."""

    app_id: str
    user_id: UUID | None
    role: str
    request_id: str
    call_id: UUID
    data: Raw


class _Entry(Struct, frozen=True):
    call_id: UUID
    row: bytes
    """As JSON."""
    done: "asyncio.Future[str | None]"

    def succeed(self, before: str | None) -> None:
        if not self.done.done():
            self.done.set_result(before)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Journal:
    def __init__(self, control: Executor, *, pause_s: float = PAUSE_S) -> None:
        self._control = control
        self._pause_s = pause_s
        self._waiting: list[_Entry] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, settlement: Settlement) -> str | None:
        """None: it is written. Else the status of the event that was there before it; where that
        was written in this moment and cannot be seen yet, an empty one.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        return await self.post(settlement)

    def post(self, settlement: Settlement) -> "asyncio.Future[str | None]":
        """What `write` will answer or raise."""
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        # Encoded here, so that one that cannot be fails alone.
        self._waiting.append(_Entry(settlement.call_id, _encode(settlement), done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._run())
        return done

    async def _run(self) -> None:
        try:
            while self._waiting:
                entries = self._waiting[:BATCH_COUNT_MAX]
                del self._waiting[:BATCH_COUNT_MAX]
                await self._write(entries)
                await asyncio.sleep(self._pause_s)
        finally:
            self._writer = None

    async def _write(self, entries: Sequence[_Entry]) -> None:
        try:
            before = await self._insert(entries)
        except asyncio.CancelledError:
            for entry in entries:
                entry.done.cancel()
            raise
        except Exception as error:
            if isinstance(error, DatabaseError) and len(entries) > 1:
                # One that is refused must not keep the others out.
                for entry in entries:
                    await self._write([entry])
                return
            for entry in entries:
                entry.fail(error)
        else:
            for entry in entries:
                entry.succeed(before.get(entry.call_id))

    async def _insert(self, entries: Sequence[_Entry]) -> dict[UUID, str]:
        """The statuses of those that were there before."""
        rows = b"[" + b",".join(entry.row for entry in entries) + b"]"
        (result,) = await self._control.run(Statement(QUERIES["settle"], (rows,)))
        found = {}
        for call_id, status in result.rows():
            assert call_id is not None
            found[UUID(call_id.decode())] = (status or b"").decode()
        return found


def _encode(settlement: Settlement) -> bytes:
    return msgspec.json.encode(
        _Row(
            settlement.app_id,
            settlement.user_id,
            settlement.role,
            settlement.request_id.replace("\0", ""),
            settlement.call_id,
            Raw(encode_call(settlement.call)),
        )
    )
