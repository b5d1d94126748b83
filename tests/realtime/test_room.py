"""A room without sockets: who is sent what, while members come and go."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.ingest.snapshots import Snapshot
from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.rooms.directory import Rooms
from butterbase.realtime.rooms.room import Member, Room
from butterbase.realtime.session.effects import Enter
from butterbase.realtime.session.protocol import Closing, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ReadPosition
from butterbase.sql.pipeline import Executor
from tests.realtime.channels import TOPIC, read_frame

PLACE = (TOPIC, True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Client:
    """A member, and what it was sent."""

    def __init__(self, id_: int = 1) -> None:
        self.frames: list[bytes] = []
        self.closings: list[Closing] = []
        self.member = Member(
            id_,
            PLACE,
            Version.V1,
            send=self.frames.append,
            close=self.closings.append,
            since_at=NOW,
        )
        self.member.hears = True

    @property
    def heard(self) -> list[Any]:
        messages = [json.loads(read_frame(frame)[1]) for frame in self.frames]
        return [m["payload"]["payload"] for m in messages if m["event"] == "broadcast"]


@pytest.fixture
def room() -> Room:
    return Room(PLACE, RealtimeSettings(held_bytes_max=1000))


def enter(room: Room, client: Client) -> Client:
    room.members[client.member.id] = client.member
    return client


def said(number: int) -> Broadcast:
    return Broadcast("e", str(number).encode())


def commit(lsn: int, xid: int = 100, at: datetime = NOW) -> Commit:
    return Commit(LSN(lsn), at, xid, ())


def test_who_is_on_the_way_is_sent_what_came_meanwhile_behind_what_is_replayed(room: Room) -> None:
    client = enter(room, Client())
    client.member.held = []
    room.broadcast(said(3))
    client.member.replayed = [said(1), said(2)]
    assert client.heard == []
    room.welcome(client.member)
    room.broadcast(said(4))
    assert client.heard == [1, 2, 3, 4]


def test_who_turns_out_not_to_hear_is_sent_nothing_of_it(room: Room) -> None:
    client = enter(room, Client())
    client.member.held = []
    room.broadcast(said(1))
    room.tell_committed(said(2), commit(5))
    client.member.hears = False
    room.welcome(client.member)
    assert client.frames == []


def test_a_member_is_sent_what_was_committed_behind_its_read_and_nothing_twice(room: Room) -> None:
    client = enter(room, Client())
    client.member.held = []
    room.tell_committed(said(1), commit(10, xid=100))  # seen by its read
    room.tell_committed(said(2), commit(20, xid=101))  # in progress then
    client.member.since = ReadPosition(LSN(25), Snapshot(101, 103, frozenset({101})))
    room.welcome(client.member)
    room.tell_committed(said(3), commit(30, xid=102))  # behind the end of the log
    room.tell_committed(said(4), commit(24, xid=100))
    assert client.heard == [2, 3]


def test_what_another_process_has_sent_before_is_not_sent_again(room: Room) -> None:
    client = enter(room, Client())
    room.tell_committed(said(1), commit(1, at=NOW - timedelta(minutes=5)))
    room.tell_committed(said(2), commit(2, at=NOW - timedelta(seconds=5)))  # clocks differ
    assert client.heard == [2]


def test_a_member_for_whom_too_much_is_held_is_closed(room: Room) -> None:
    client = enter(room, Client())
    client.member.held = []
    for _ in range(5):
        room.broadcast(Broadcast("e", b'"' + b"x" * 300 + b'"'))
    assert set(client.closings) == {Closing.OVERLOADED}
    assert client.member.held_bytes >= 1000
    assert len(client.member.held) <= 3


def test_a_frame_is_made_once_for_all_of_a_version(room: Room) -> None:
    clients = [enter(room, Client(id_)) for id_ in range(3)]
    room.broadcast(said(1))
    (first,), *others = [client.frames for client in clients]
    assert all(frame is first for (frame,) in others)


async def test_a_member_that_closes_while_it_is_sent_to_harms_no_other() -> None:
    rooms = Rooms(Executor("host=/nowhere"), wait_log=_never)
    clients: list[Member] = []
    heard: list[int] = []

    def leaver(index: int) -> Callable[[bytes], None]:
        def send(_frame: bytes) -> None:
            heard.append(index)
            rooms.leave(clients[index])

        return send

    for index in range(50):
        member = rooms.new_member(PLACE, Version.V2, send=leaver(index), close=_ignore)
        rooms.enter(member, Enter(index, *PLACE, True, True, True, ""))
        clients.append(member)
        assert rooms.track(member, {"n": index})
    rooms.broadcast(clients[0], said(1), is_echoed=True)
    assert heard == list(range(50))
    assert len(rooms) == 0


async def _never() -> None: ...


def _ignore(_code: Closing) -> None: ...
