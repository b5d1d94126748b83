"""The rooms of one app, and the reader of its log for what is broadcast into them.

A private topic and a public one of the same name are two rooms: nothing goes from one to the other.
"""

import asyncio
import itertools
import logging
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, ZERO, parse_lsn
from butterbase.realtime.rooms.authorization import QUERIES, Admission, Authorization
from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.rooms.logged_broadcasts import broadcasts_of, has_broadcasts
from butterbase.realtime.rooms.room import Member, Place, Room
from butterbase.realtime.session.config import Replay
from butterbase.realtime.session.effects import Enter
from butterbase.realtime.session.protocol import Closing, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

_SLICE_S: Final = 0.005


class Rooms:
    """`start` it before there are members."""

    def __init__(
        self,
        executor: Executor,
        *,
        wait_log: Callable[[], Awaitable[None]],
        settings: RealtimeSettings | None = None,
    ) -> None:
        """`wait_log` returns once no commit that follows is missed; see Consumer.wait_connected."""
        self._executor = executor
        self._wait_log = wait_log
        self._settings = settings or RealtimeSettings()
        self._authorization = Authorization(executor, self._settings)
        self._rooms: dict[Place, Room] = {}
        self._numbers = itertools.count(1)
        # A client may still believe the presences of a process before this one.
        self._ref_head = secrets.token_urlsafe(6)
        self._seen = ZERO

    async def start(self) -> None:
        """Take note of where the log is. Raises DatabaseUnavailableError."""
        (result,) = await self._executor.run(Statement(QUERIES["position"]))
        position = result.value()
        assert position is not None
        self._seen = max(self._seen, parse_lsn(position.decode()))

    def __len__(self) -> int:
        """Of the rooms that have members."""
        return len(self._rooms)

    # Asking

    async def admit(self, claims: Claims, subtopic: str, replay: Replay | None) -> Admission:
        """Raises DatabaseError where a policy fails, DatabaseUnavailableError."""
        return await self._authorization.admit(claims, subtopic, replay)

    async def may_write(self, claims: Claims, subtopic: str, extension: str) -> bool:
        """Raises DatabaseError where a policy fails, DatabaseUnavailableError."""
        return await self._authorization.may_write(claims, subtopic, extension)

    async def log_is_read(self) -> bool:
        """Wait until what is committed reaches the rooms; False when that takes too long."""
        try:
            async with asyncio.timeout(self._settings.log_ready_timeout_s):
                await self._wait_log()
        except TimeoutError:
            return False
        return True

    # Members

    def new_member(
        self,
        place: Place,
        version: Version,
        *,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
    ) -> Member:
        return Member(
            next(self._numbers),
            place,
            version,
            send=send,
            close=close,
            since_at=datetime.now(UTC),
        )

    def hold(self, member: Member) -> None:
        """Keep for the member what is broadcast from now on, until it is welcomed."""
        member.held, member.hears = [], True
        self._room(member.place).members[member.id] = member

    def enter(self, member: Member, enter: Enter) -> None:
        member.hears, member.sees, member.may_see = enter.hears, enter.sees, enter.may_see
        member.presence_key = enter.presence_key or str(uuid.uuid4())
        self._room(member.place).members[member.id] = member

    def leave(self, member: Member) -> None:
        room = self._rooms.get(member.place)
        if room is None or room.members.pop(member.id, None) is None:
            return
        if not room.members:
            del self._rooms[member.place]
            if room.timer is not None:
                room.timer.cancel()
            return
        room.presences.untrack(member.id)
        self._tell_soon(room)

    def welcome(self, member: Member) -> None:
        self._room(member.place).welcome(member)

    def broadcast(self, member: Member, broadcast: Broadcast, *, is_echoed: bool) -> None:
        self._room(member.place).broadcast(broadcast, but=None if is_echoed else member)

    def track(self, member: Member, properties: Mapping[str, Any]) -> bool:
        """Whether there is room for it. Who is present also sees who else is."""
        room = self._room(member.place)
        ref = f"{self._ref_head}{next(self._numbers):x}"
        if not room.presences.track(member.id, member.presence_key, properties, ref):
            return False
        if member.may_see and not member.sees:
            member.sees = True
            room.show_presences(member)
        self._tell_soon(room)
        return True

    def untrack(self, member: Member) -> None:
        room = self._room(member.place)
        room.presences.untrack(member.id)
        self._tell_soon(room)

    def _room(self, place: Place) -> Room:
        room = self._rooms.get(place)
        if room is None:
            room = self._rooms[place] = Room(place, self._settings)
        return room

    def _tell_soon(self, room: Room) -> None:
        """At once after a while of nothing; else what happens meanwhile is told together."""
        if not room.presences.has_news or room.timer is not None:
            return
        loop = asyncio.get_running_loop()
        # Never right here: sending may close a slow member, whose leaving is told again.
        at_s = max(loop.time(), room.told_at_s + self._settings.presence_interval_s)
        room.timer = loop.call_at(at_s, self._tell, room)

    def _tell(self, room: Room) -> None:
        room.timer, room.told_at_s = None, asyncio.get_running_loop().time()
        room.tell_presences()
        self._tell_soon(room)

    # Reading the log

    async def deliver(self, commit: Commit) -> None:
        """Send what the commit broadcasts. What cannot be sent is logged; the log is read on."""
        if commit.lsn <= self._seen:
            return  # read again after a restart: older than any member
        self._seen = commit.lsn
        if not self._rooms or not has_broadcasts(commit):
            return
        yielded_at_s = time.monotonic()
        for found in broadcasts_of(commit):
            if found is not None:
                self._send_committed(commit, *found)
            if time.monotonic() - yielded_at_s > _SLICE_S:
                await asyncio.sleep(0)
                yielded_at_s = time.monotonic()

    def _send_committed(self, commit: Commit, place: Place, broadcast: Broadcast) -> None:
        room = self._rooms.get(place)
        if room is None:
            return
        if broadcast.size_bytes > self._settings.payload_bytes_max:
            logger.warning(
                "message %s to %s is larger than payload_bytes_max: not sent",
                broadcast.id,
                place[0],
            )
            return
        room.tell_committed(broadcast, commit)

    def position(self) -> LSN | None:
        """Nothing is kept: who was not here is replayed what the table keeps."""
        return None
