"""What policies on `realtime.messages` let a caller do in a private channel.

Postgres is asked by doing it, and undoing it: rows are inserted as who may, and looked for as the
caller; a row is inserted as the caller. What fails in any way is not allowed.
"""

import asyncio
import logging
import uuid
from base64 import b64decode
from typing import Final

from msgspec import Struct

from butterbase.ingest.lsn import parse_lsn
from butterbase.ingest.snapshots import parse_snapshot
from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.session.config import Replay
from butterbase.realtime.session.effects import Permissions
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import Position, ReadPosition
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Isolation, Result, Statement

logger = logging.getLogger(__name__)

QUERIES: Final = load_queries("realtime")
_INSUFFICIENT_PRIVILEGE: Final = "42501"


class Admission(Struct, frozen=True):
    permissions: Permissions
    position: Position
    """What is committed behind it is not among what is replayed."""
    replayed: tuple[Broadcast, ...] = ()
    """The oldest first."""


class Authorization:
    """One app's."""

    def __init__(self, executor: Executor, settings: RealtimeSettings) -> None:
        self._executor = executor
        self._replayed_bytes_max = settings.replayed_bytes_max
        # Not all connections: the policies of changes are asked about, too.
        self._turns = asyncio.Semaphore(settings.authorization_count_max)
        self._warned: set[str] = set()

    async def admit(self, claims: Claims, subtopic: str, replay: Replay | None) -> Admission:
        """What the caller may read, and with `replay` what it is to be sent again.

        Raises DatabaseError where a policy fails, DatabaseUnavailableError.
        """
        broadcast, presence = str(uuid.uuid4()), str(uuid.uuid4())
        statements = [
            _statement("become_writer", subtopic),
            _statement("insert_readable", subtopic, broadcast, presence),
            become(claims, subtopic),
            _statement("select_readable", broadcast, presence),
            _statement("position"),
        ]
        if replay is not None:
            limits = str(replay.since_ms), str(replay.count_max)
            statements.append(_statement("select_replayed", subtopic, *limits))
        results = await self._undone(*statements, isolation="repeatable read")
        readable = {row[0].decode() for row in results[3].rows() if row[0] is not None}
        permissions = Permissions(broadcast in readable, presence in readable)
        position = read_position_of(results[4])
        if replay is None or not permissions.broadcast:
            return Admission(permissions, position)
        return Admission(permissions, position, _replayed(results[5], self._replayed_bytes_max))

    async def may_write(self, claims: Claims, subtopic: str, extension: str) -> bool:
        """Raises DatabaseError where a policy fails, DatabaseUnavailableError."""
        try:
            await self._undone(
                become(claims, subtopic), _statement("insert_writable", subtopic, extension)
            )
        except DatabaseError as error:
            if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
                raise
            return False
        return True

    async def _undone(
        self, *statements: Statement, isolation: Isolation | None = None
    ) -> list[Result]:
        try:
            async with self._turns:
                return await self._executor.run(
                    *statements, is_rolled_back=True, isolation=isolation
                )
        except DatabaseError as error:
            self._warn(error)
            raise

    def _warn(self, error: DatabaseError) -> None:
        """Once for each way in which a policy fails."""
        is_known = error.sqlstate == _INSUFFICIENT_PRIVILEGE or error.sqlstate in self._warned
        if not is_known:
            self._warned.add(error.sqlstate)
            logger.warning(
                "a policy of realtime.messages fails, and keeps clients out: %s", error.message
            )


def become(claims: Claims, subtopic: str) -> Statement:
    """From here on the transaction is the caller's, in the channel of that topic."""
    return _statement("become_caller", claims.role, claims.json, claims.subject or "", subtopic)


def _statement(name: str, *parameters: str) -> Statement:
    return Statement(QUERIES[name], tuple(parameter.encode() for parameter in parameters))


def read_position_of(result: Result) -> ReadPosition:
    """Of the statement `position`, with the transaction's one snapshot."""
    lsn, snapshot = result.value(0, 0), result.value(0, 1)
    assert lsn is not None
    assert snapshot is not None
    return ReadPosition(parse_lsn(lsn.decode()), parse_snapshot(snapshot.decode()))


def _replayed(result: Result, bytes_max: int) -> tuple[Broadcast, ...]:
    """The oldest first; where they are more than `bytes_max` the oldest are left out."""
    found: list[Broadcast] = []
    size_bytes = 0
    for id_, event, payload, binary in result.rows():
        assert id_ is not None
        assert event is not None
        content = payload if payload is not None else b64decode(binary or b"")
        size_bytes += len(content)
        if size_bytes > bytes_max:
            break
        found.append(
            Broadcast(
                event.decode(),
                content,
                is_binary=payload is None,
                id=id_.decode(),
                is_replayed=True,
            )
        )
    return tuple(reversed(found))
