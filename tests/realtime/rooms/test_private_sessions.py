"""What a socket decides about private channels, and about new tokens for them."""

from typing import Any

import pytest

from butterbase.realtime.session import core
from butterbase.realtime.session.core import (
    Admit,
    Authorize,
    Effect,
    Emit,
    Enter,
    Permissions,
    Permit,
    Prepare,
    Reauthorize,
    Track,
    Unsubscribe,
    Untrack,
)
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from tests.realtime.feeding import (
    ANON,
    READABLE,
    SETTINGS,
    TOKENS,
    TOPIC,
    Socket,
)

# Private channels


def test_a_private_channel_is_joined_once_it_may_be_read() -> None:
    socket = Socket()
    assert socket.join(private=True) == [Admit(1, 0, ANON, TOPIC, "room")]
    assert isinstance(socket.admitted()[0], Prepare)
    socket.prepared()
    assert socket.effects[1] == Enter(1, TOPIC, True, True, False, True, "")


@pytest.mark.parametrize(
    ("config", "permissions"),
    [
        ({}, Permissions(False, False)),
        ({}, Permissions(False, True)),  # presence is not asked for
        ({"presence": {"enabled": True}}, Permissions(False, False)),
        (
            {"presence": {"enabled": True}, "broadcast": {"replay": {"since": 1}}},
            Permissions(False, True),
        ),
    ],
)
def test_a_private_channel_that_may_not_be_read_is_refused(
    config: dict[str, Any], permissions: Permissions
) -> None:
    socket = Socket()
    socket.join(private=True, **config)
    assert socket.admitted(permissions)[0] == Unsubscribe(1)
    reason = "Unauthorized: You do not have permissions to read from this Channel topic: room"
    assert socket.reason == reason
    assert not socket.is_joined


def test_who_may_read_presences_alone_hears_nothing() -> None:
    socket = Socket()
    socket.join(private=True, presence={"enabled": True})
    socket.admitted(Permissions(False, True))
    socket.prepared()
    enter = socket.effects[1]
    assert isinstance(enter, Enter)
    assert (enter.hears, enter.sees) == (False, True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DatabaseError("P0001", "a policy failed"), "Unauthorized: You do not have permissions"),
        (DatabaseUnavailableError("host=10.0.0.1"), "UnableToConnectToProject: The database"),
    ],
)
def test_where_policies_cannot_be_asked_nobody_is_let_in(error: Any, reason: str) -> None:
    socket = Socket()
    socket.join(private=True)
    socket.take(core.on_not_admitted(socket.session, 1, 0, error))
    assert socket.reason.startswith(reason)
    assert "10.0.0.1" not in socket.reason
    assert not socket.is_joined


def test_the_first_message_asks_and_all_wait_in_order() -> None:
    socket = Socket().joined(private=True, broadcast={"ack": True})
    assert socket.broadcast("one", "1") == [Authorize(1, 0, ANON, "room", "broadcast")]
    assert socket.push(b"two", "2") == []
    socket.authorized(True)
    sent = [e.broadcast for e in socket.effects if isinstance(e, Emit)]
    assert [(b.event, b.payload) for b in sent] == [("one", b""), ("e", b"two")]
    assert [ref for ref, *_ in socket.replies] == ["1", "2"]
    assert not socket.session.waiting
    assert isinstance(socket.broadcast()[0], Emit)


def test_a_message_that_may_not_be_written_is_lost_in_silence() -> None:
    socket = Socket().joined(private=True, broadcast={"ack": True})
    socket.broadcast()
    assert socket.authorized(False) == []
    assert socket.broadcast() == []
    assert socket.is_joined


def test_where_the_answer_is_not_known_the_next_message_asks() -> None:
    socket = Socket().joined(private=True)
    socket.broadcast()
    assert socket.authorized(None) == []
    assert isinstance(socket.broadcast()[0], Authorize)


def test_broadcasts_and_presences_are_asked_about_apart() -> None:
    socket = Socket().joined(private=True)
    socket.broadcast()
    assert socket.track({"a": 1}) == [Authorize(1, 0, ANON, "room", "presence")]
    assert socket.authorized(True, "presence") == [Track(1, "9", {"a": 1})]
    assert [w.extension for w in socket.session.waiting] == ["broadcast"]
    socket.authorized(False)
    assert isinstance(socket.track({"a": 2})[0], Track)


def test_who_may_not_be_present_is_told() -> None:
    socket = Socket().joined(private=True)
    socket.track({})
    socket.authorized(False, "presence")
    assert socket.reason.startswith("You do not have permissions to write")


def test_an_untrack_waits_behind_the_track_that_it_ends() -> None:
    socket = Socket().joined(private=True)
    assert socket.feed("presence", {"event": "untrack"})[0] == Untrack(1)
    socket.track({"a": 1})
    assert socket.feed("presence", {"event": "untrack"}) == []
    track, untrack, _ = socket.authorized(True, "presence")
    assert (track, untrack) == (Track(1, "9", {"a": 1}), Untrack(1))


def test_what_waits_is_bounded_in_number_and_size() -> None:
    socket = Socket().joined(private=True)
    for _ in range(6):
        socket.push(b"x")
    assert len(socket.session.waiting) == 4
    larger = Socket().joined(private=True)
    for _ in range(3):
        larger.push(b"x" * 200)
    assert len(larger.session.waiting) == 2


def test_what_waits_goes_with_its_channel() -> None:
    socket = Socket().joined(private=True)
    socket.broadcast()
    socket.feed("phx_leave", {})
    assert not socket.session.waiting
    assert socket.authorized(True) == []


# Tokens


def new_token(socket: Socket, token: str = "alice") -> list[Effect]:
    return socket.feed("access_token", {"access_token": token})


def test_a_new_token_asks_again_and_so_does_what_waits() -> None:
    socket = Socket().joined(private=True, broadcast={"ack": True})
    socket.broadcast()
    alice = TOKENS["alice"]
    assert new_token(socket) == [
        Reauthorize(1, alice),
        Admit(1, 1, alice, TOPIC, "room"),
        Authorize(1, 1, alice, "room", "broadcast"),
    ]
    assert socket.authorized(True, epoch=0) == []  # with the former token
    assert socket.admitted() == [Permit(1, True, True)]
    assert isinstance(socket.authorized(True, epoch=1)[0], Emit)
    assert new_token(socket, "bob")
    assert isinstance(socket.broadcast()[0], Authorize)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((True, True), (False, False), "You do not have permissions to read"),
        ((True, True), (False, True), "You no longer have permission to read"),
        ((True, True), (True, False), "You no longer have permission to read"),
    ],
)
def test_a_token_that_may_read_less_closes_the_channel(
    before: tuple[bool, bool], after: tuple[bool, bool], message: str
) -> None:
    socket = Socket()
    socket.join(private=True, presence={"enabled": True})
    socket.admitted(Permissions(*before))
    socket.prepared()
    new_token(socket)
    socket.admitted(Permissions(*after))
    ((status, text),) = socket.systems
    assert (status, text) == ("error", f"{message} from this Channel topic: room")
    assert not socket.is_joined


def test_presences_that_nobody_asked_for_are_not_missed() -> None:
    socket = Socket().joined(private=True)
    new_token(socket)
    assert socket.admitted(Permissions(True, False)) == [Permit(1, True, False)]


def test_a_token_about_which_nothing_can_be_asked_closes_the_channel() -> None:
    socket = Socket().joined(private=True)
    new_token(socket)
    socket.take(core.on_not_admitted(socket.session, 1, 1, DatabaseUnavailableError("gone")))
    assert socket.systems == [("error", "Realtime was unable to connect to the project database")]
    assert not socket.is_joined


def test_a_token_that_comes_during_the_join_is_the_one_that_counts() -> None:
    socket = Socket()
    socket.join(private=True)
    new_token(socket)
    first = core.on_admitted(socket.session, 1, 0, READABLE, SETTINGS)
    assert first == (socket.session, [])
    assert isinstance(socket.admitted()[0], Prepare)
    new_token(socket, "bob")
    assert socket.prepared(epoch=1) == []  # of the former token
    socket.admitted(Permissions(False, False))
    assert not socket.is_joined


def test_a_public_channel_asks_nothing_with_a_new_token() -> None:
    assert new_token(Socket().joined()) == [Reauthorize(1, TOKENS["alice"])]
