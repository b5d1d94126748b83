"""One room: its members, what is broadcast to them, and who of them is present.

Each message is encoded once for each version of the serializer.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Raw

from butterbase.ingest.changes import Commit
from butterbase.realtime.rooms.broadcast import Broadcast, frame_of
from butterbase.realtime.rooms.presence import Presences
from butterbase.realtime.session.protocol import Closing, Message, Version, encode, websocket_frame
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import Position

Place: TypeAlias = tuple[str, bool]
"""A topic as it is joined, and whether it is the private one."""

CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""By which the database's clock may be behind ours."""


class Member:
    """A channel in its room, or on its way into it."""

    def __init__(
        self,
        id_: int,
        place: Place,
        version: Version,
        *,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
        since_at: datetime,
    ) -> None:
        self.id = id_
        self.place = place
        self.version = version
        self.send = send
        self.close = close
        self.since_at = since_at
        self.presence_key = ""
        self.hears = False
        """Broadcasts go to it."""
        self.sees = False
        """Presences go to it."""
        self.may_see = False
        self.since: Position | None = None
        """What is committed before is none of its, but for what it is replayed."""
        self.replayed: Sequence[Broadcast] = ()
        """What it is sent when it is welcomed."""
        self.held: list[tuple[Commit | None, bytes]] | None = None
        """Frames to send while it is on its way, and who told them. None: it is here."""
        self.held_bytes = 0

    def expects(self, commit: Commit) -> bool:
        """Whether the member was here when it was committed.

        A process that takes over from another reads once more what that one has sent.
        """
        if self.since is not None:
            return self.since.is_before(commit.lsn, commit.xid, 0)
        return self.since_at <= commit.at + CLOCK_TOLERANCE


class Room:
    def __init__(self, place: Place, settings: RealtimeSettings) -> None:
        self.topic, self.is_private = place
        self.members: dict[int, Member] = {}
        self.presences = Presences(size_bytes_max=settings.room_presence_bytes_max)
        self.timer: asyncio.TimerHandle | None = None
        """Of the next time that presences are told."""
        self.told_at_s = float("-inf")
        self._held_bytes_max = settings.held_bytes_max

    # Broadcasts

    def broadcast(self, broadcast: Broadcast, *, but: Member | None = None) -> None:
        """Send to all, or to all but its sender."""
        members = self.members.values()
        self._send(broadcast, [m for m in members if m.hears and m is not but])

    def tell_committed(self, broadcast: Broadcast, commit: Commit) -> None:
        """Send what the log tells to those who were here when it was committed."""
        members = self.members.values()
        # Of those on their way that is not known yet.
        heard = [m for m in members if m.hears and (m.held is not None or m.expects(commit))]
        self._send(broadcast, heard, commit)

    def _send(
        self, broadcast: Broadcast, members: Iterable[Member], commit: Commit | None = None
    ) -> None:
        frames: dict[Version, bytes | None] = {}
        for member in members:
            if member.version not in frames:
                frames[member.version] = frame_of(broadcast, self.topic, member.version)
            frame = frames[member.version]
            if frame is None:
                continue
            if member.held is None:
                member.send(frame)
            else:
                self._hold(member, member.held, commit, frame)

    def _hold(
        self,
        member: Member,
        held: list[tuple[Commit | None, bytes]],
        commit: Commit | None,
        frame: bytes,
    ) -> None:
        member.held_bytes += len(frame)
        if member.held_bytes > self._held_bytes_max:
            member.close(Closing.OVERLOADED)  # rather than a gap that it cannot see
        else:
            held.append((commit, frame))

    def welcome(self, member: Member) -> None:
        """Send what is here: who is present, what is replayed, and what came meanwhile."""
        if member.sees:
            self.show_presences(member)
        for broadcast in member.replayed:
            frame = frame_of(broadcast, self.topic, member.version)
            if frame is not None:
                member.send(frame)
        member.replayed = ()
        held, member.held = member.held or (), None
        for commit, frame in held:
            # Whether it may hear was not known when they were held.
            if member.hears and (commit is None or member.expects(commit)):
                member.send(frame)

    # Presences

    def show_presences(self, member: Member) -> None:
        """Send what all others know."""
        state = Raw(self.presences.state())
        member.send(self._frame("presence_state", state, member.version))

    def tell_presences(self) -> None:
        """Send what has changed since the last time."""
        diff = self.presences.tell()
        if diff is None:
            return
        frames: dict[Version, bytes] = {}
        for member in [m for m in self.members.values() if m.sees]:
            if member.version not in frames:
                frames[member.version] = self._frame("presence_diff", Raw(diff), member.version)
            member.send(frames[member.version])

    def _frame(self, event: str, payload: Raw, version: Version) -> bytes:
        return websocket_frame(encode(Message(self.topic, event, payload), version))
