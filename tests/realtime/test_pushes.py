"""What a socket decides about messages into its channels."""

from typing import Any

import pytest

from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.session import core
from butterbase.realtime.session.core import (
    AwaitLog,
    Close,
    Emit,
    Enter,
    Prepare,
    Send,
    Subscribe,
    Track,
    Unsubscribe,
    Untrack,
    Welcome,
)
from butterbase.realtime.session.protocol import Closing
from tests.realtime.feeding import (
    ECHO,
    TOPIC,
    Socket,
)

# Rooms


def test_a_channel_is_in_its_room_before_the_client_is_told_and_is_welcomed_behind() -> None:
    socket = Socket().joined(presence={"enabled": True, "key": "ada"})
    subscribe, enter, reply, welcome = socket.effects
    assert isinstance(subscribe, Subscribe)
    assert enter == Enter(1, TOPIC, False, True, True, True, "ada")
    assert isinstance(reply, Send)
    assert welcome == Welcome(1)


def test_a_broadcast_goes_to_the_room_and_is_not_answered_unasked() -> None:
    (emit,) = Socket().joined().broadcast()
    assert isinstance(emit, Emit)
    assert not emit.is_echoed


def test_a_broadcast_is_answered_and_echoed_where_that_is_asked_for() -> None:
    socket = Socket().joined(broadcast=ECHO)
    emit, _ = socket.push(b"\x00")
    assert emit == Emit(1, Broadcast("e", b"\x00", is_binary=True), True)
    assert socket.replies == [("9", "ok", {})]


@pytest.mark.parametrize("is_private", [False, True])
def test_a_payload_that_is_too_large_goes_nowhere(is_private: bool) -> None:
    told = Socket().joined(broadcast=ECHO, private=is_private)
    told.push(b"x" * 501)
    if is_private:
        told.authorized(True)
    else:
        told.push(b"x" * 1001)
    untold = Socket().joined()
    assert untold.push(b"x" * 1001) == []
    assert untold.feed("broadcast", {"event": "e", "payload": "x" * 1001}) == []
    told.push(b"x" * 1001, "10")
    assert told.replies == [("10", "error", "payload_size_exceeded")]


def test_messages_into_channels_that_are_not_joined_are_told_or_dropped() -> None:
    socket = Socket()
    socket.broadcast()
    assert socket.reason == "unmatched topic"
    socket.push(b"")
    assert socket.reason == "unmatched topic"
    socket.join()
    assert socket.broadcast() == []
    assert socket.push(b"") == []


# Presence


def test_a_track_is_answered_once_the_room_has_it() -> None:
    socket = Socket().joined()
    assert socket.track({"a": 1}) == [Track(1, "9", {"a": 1})]
    socket.take(core.on_tracked(socket.session, 1, "9", is_present=True))
    assert socket.replies == [("9", "ok", {})]
    socket.take(core.on_tracked(socket.session, 1, "9", is_present=False))
    assert socket.reason == "Too much presence in this channel"


def test_an_untrack_is_answered() -> None:
    socket = Socket().joined()
    assert socket.feed("presence", {"event": "untrack"})[0] == Untrack(1)
    assert socket.replies == [("9", "ok", {})]


@pytest.mark.parametrize("properties", [None, [], "x", 1])
def test_only_a_map_can_be_tracked(properties: Any) -> None:
    socket = Socket().joined()
    socket.track(properties)
    assert socket.reason == "Presence track payload must be a map"


def test_an_unknown_presence_event_is_an_error() -> None:
    socket = Socket().joined()
    socket.feed("presence", {"event": "vanish"})
    assert socket.reason == "Unknown presence event"


def test_too_many_presence_calls_close_the_channel() -> None:
    socket = Socket().joined()
    for _ in range(3):
        socket.track({})
    socket.track({})
    assert socket.effects[0] == Unsubscribe(1)
    assert socket.systems == [("error", "Client presence rate limit exceeded")]
    assert not socket.is_joined


def test_tracking_too_much_closes_the_channel() -> None:
    socket = Socket().joined()
    socket.track({str(number): number for number in range(10_000)})
    assert socket.systems == [("error", "Track message size exceeded")]
    assert not socket.is_joined


# Rates


def test_too_many_messages_close_the_channel_they_go_to_and_no_other() -> None:
    socket = Socket().joined("realtime:other").joined()
    for _ in range(10):
        assert socket.broadcast()
    socket.broadcast()
    assert socket.systems == [("error", "Too many messages per second")]
    assert list(socket.session.channels) == ["realtime:other"]
    assert socket.broadcast() == []  # what follows is not even told that there is no channel
    assert socket.feed("heartbeat", {}, topic="phoenix")
    socket.now_s += 1
    socket.broadcast()
    assert socket.reason == "unmatched topic"


def test_too_many_joins_end_the_socket() -> None:
    socket = Socket()
    for _ in range(5):
        socket.join()
    assert socket.join()[-1] == Close(Closing.TOO_MANY_JOINS)
    assert socket.reason == "ClientJoinRateLimitReached: Too many joins per second"
    socket.now_s += 1
    assert isinstance(socket.join()[-1], Prepare)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("realtime:" + "x" * 1024, "TopicNameTooLong"),
        ("realtime:" + "é" * 600, "TopicNameTooLong"),
        ("realtime:a\0b", "TopicNameInvalid"),
    ],
)
def test_hostile_topics_are_refused(topic: str, reason: str) -> None:
    socket = Socket()
    socket.join(topic)
    assert socket.reason.startswith(reason)


# The log


def test_a_channel_is_told_when_the_log_is_read() -> None:
    socket = Socket().joined(broadcast={"replication_ready": True})
    assert socket.effects[-1] == AwaitLog(1)
    socket.take(core.on_log_read(socket.session, 1, is_read=True))
    assert socket.systems == [("ok", "Replication connection established")]
    socket.take(core.on_log_read(socket.session, 1, is_read=False))
    assert socket.systems == [("error", "Replication connection was not established in time")]
    assert not socket.is_joined
