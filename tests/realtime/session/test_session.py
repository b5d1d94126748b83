"""One socket's decisions, without a socket."""

from collections.abc import Iterator
from typing import Any

import pytest

from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.matching import Binding
from butterbase.realtime.errors import LogNotReadyError, ResyncRequiredError
from butterbase.realtime.session import core
from butterbase.realtime.session.core import (
    AnswerHeartbeat,
    Close,
    Effect,
    Prepare,
    Prepared,
    Reauthorize,
    Send,
    Session,
    Subscribe,
    Unsubscribe,
)
from butterbase.realtime.session.protocol import Closing, Frame, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ChangePosition
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.errors import InvalidTokenError
from tests.realtime.streaming import ALICE, user_claims

NOW_S = 1_000_000.0
SETTINGS = RealtimeSettings(channel_count_max=2)
ANON = claims_for_role("anon")
TOPIC = "realtime:room"
CHANGES = [{"event": "*", "schema": "public", "table": "notes"}]
TOKENS: dict[str, Claims] = {
    "alice": user_claims(ALICE),
    "short": user_claims(ALICE, expires_at=int(NOW_S) + 30),
    "old": user_claims(ALICE, expires_at=int(NOW_S) - 5),
}


def authenticate(token: str) -> Claims:
    try:
        return TOKENS[token]
    except KeyError:
        raise InvalidTokenError("The token provided is not a valid JWT") from None


def new_session() -> Session:
    return Session(Version.V1, ANON, "key", heard_at_s=NOW_S)


def feed(session: Session, frame: Frame, *, now_s: float = NOW_S) -> core.Step:
    return core.on_frame(session, frame, now_s=now_s, authenticate=authenticate, settings=SETTINGS)


def join(topic: str = TOPIC, ref: str = "1", *, changes: Any = CHANGES, **more: Any) -> Frame:
    return Frame(topic, "phx_join", {"config": {"postgres_changes": changes}, **more}, ref, ref)


def prepared_for(effects: list[Effect]) -> tuple[Prepare, Prepared]:
    prepare = next(effect for effect in effects if isinstance(effect, Prepare))
    bindings = tuple(Binding(r.id, r.event, r.schema, r.table) for r in prepare.requests)
    return prepare, Prepared(bindings, (), ChangePosition(LSN(7)))


def joined(**more: Any) -> Session:
    session, effects = feed(new_session(), join(**more))
    prepare, prepared = prepared_for(effects)
    session, _ = core.on_prepared(session, prepare.key, prepare.epoch, prepared, SETTINGS)
    return session


def sent(effects: list[Effect]) -> Iterator[tuple[str, Any]]:
    """Event and payload of each message."""
    for effect in effects:
        if isinstance(effect, Send):
            yield effect.message.event, effect.message.payload


def reasons(effects: list[Effect]) -> list[str]:
    return [payload["response"]["reason"] for _, payload in sent(effects)]


def test_a_heartbeat_is_answered() -> None:
    _, effects = feed(new_session(), Frame("phoenix", "heartbeat", {}, "5"))
    assert effects == [AnswerHeartbeat("5", None)]


def test_a_channel_is_subscribed_before_the_client_is_told() -> None:
    session, effects = feed(new_session(), join())
    prepare, prepared = prepared_for(effects)
    assert effects == [prepare]
    session, effects = core.on_prepared(session, prepare.key, prepare.epoch, prepared, SETTINGS)
    assert effects[0] == Subscribe(prepare.key, TOPIC, ANON, prepared)
    (_, reply), (_, system) = sent(effects)
    assert reply["response"]["postgres_changes"] == [{**CHANGES[0], "id": prepare.requests[0].id}]
    assert system == {
        "extension": "postgres_changes",
        "status": "ok",
        "message": "Subscribed to PostgreSQL",
        "channel": "room",
    }


def test_a_join_may_say_where_to_go_on() -> None:
    changes = [{**CHANGES[0], "from": "0/16B3748/3"}]
    session, effects = feed(new_session(), join(changes=changes))
    prepare, prepared = prepared_for(effects)
    assert prepare.since == ChangePosition(LSN(0x16B3748), 3)
    _, effects = core.on_prepared(session, prepare.key, prepare.epoch, prepared, SETTINGS)
    (_, reply), _ = sent(effects)
    assert reply["response"]["position"] == "0/7"


def test_a_join_from_nowhere_is_refused() -> None:
    session, effects = feed(new_session(), join(changes=[{**CHANGES[0], "from": "here"}]))
    assert reasons(effects) == ["InvalidPosition: here is not a position"]
    assert not session.channels


def test_a_join_from_too_long_ago_is_told_the_present_position() -> None:
    session, effects = feed(new_session(), join())
    prepare, _ = prepared_for(effects)
    error = ResyncRequiredError("it is gone", position="0/9@3:3:")
    session, effects = core.on_refused(session, prepare.key, error)
    ((_, reply),) = sent(effects)
    assert reply == {
        "status": "error",
        "response": {
            "reason": "ResyncRequired: it is gone",
            "code": "resync_required",
            "position": "0/9@3:3:",
        },
    }
    assert not session.channels


def test_a_join_without_changes_is_answered_with_an_empty_list() -> None:
    session, effects = feed(new_session(), join(changes=None))
    prepare, prepared = prepared_for(effects)
    _, effects = core.on_prepared(session, prepare.key, prepare.epoch, prepared, SETTINGS)
    ok = {"status": "ok", "response": {"postgres_changes": []}}
    assert list(sent(effects)) == [("phx_reply", ok)]


@pytest.mark.parametrize(
    "payload",
    [{}, {"config": []}, {"config": {"postgres_changes": {"a": 1}}}, {"config": None}],
)
def test_an_unreadable_configuration_counts_as_none(payload: dict[str, Any]) -> None:
    _, effects = feed(new_session(), Frame(TOPIC, "phx_join", payload, "1", "1"))
    assert prepared_for(effects)[0].requests == ()


def test_null_entries_are_dropped() -> None:
    _, effects = feed(new_session(), join(changes=[None, CHANGES[0]]))
    assert len(prepared_for(effects)[0].requests) == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (join("room"), "unmatched topic"),
        (join("realtime:"), "TopicNameRequired"),
        (join(access_token="forged"), "InvalidJWTToken: The token provided is not a valid JWT"),
        (join(access_token="old"), "InvalidJWTToken: Token has expired 5 seconds ago"),
        (join(changes=CHANGES * 101), "Too many postgres_changes"),
    ],
)
def test_a_join_that_cannot_be_is_refused(frame: Frame, reason: str) -> None:
    session, effects = feed(new_session(), frame)
    assert [text[: len(reason)] for text in reasons(effects)] == [reason]
    assert not session.channels


def test_channels_of_a_socket_are_limited() -> None:
    session = new_session()
    for topic in ("realtime:a", "realtime:b"):
        session, _ = feed(session, join(topic))
    _, effects = feed(session, join("realtime:c"))
    assert reasons(effects) == ["ChannelRateLimitReached: Too many channels"]
    _, effects = feed(session, join("realtime:a", "9"))
    assert isinstance(effects[-1], Prepare)


@pytest.mark.parametrize(("token", "claims"), [("alice", TOKENS["alice"]), ("sb_key", ANON)])
def test_a_join_speaks_for_its_token_or_the_sockets_key(token: str, claims: Claims) -> None:
    _, effects = feed(new_session(), join(access_token=token))
    assert prepared_for(effects)[0].claims == claims


def test_a_second_join_of_a_topic_closes_the_first() -> None:
    session, effects = feed(joined(), join(ref="8"))
    unsubscribe, closed, prepare = effects
    assert unsubscribe == Unsubscribe(1)
    assert isinstance(closed, Send)
    assert (closed.message.event, closed.message.ref) == ("phx_close", "1")
    assert isinstance(prepare, Prepare)
    assert prepare.key == 2
    assert len(session.channels) == 1


def test_an_answer_for_a_channel_that_was_left_does_nothing() -> None:
    session, effects = feed(new_session(), join())
    prepare, prepared = prepared_for(effects)
    session, _ = feed(session, Frame(TOPIC, "phx_leave", {}, "2", "1"))
    assert core.on_prepared(session, prepare.key, prepare.epoch, prepared, SETTINGS) == (
        session,
        [],
    )
    assert core.on_refused(session, prepare.key, LogNotReadyError()) == (session, [])


def test_a_join_is_asked_about_anew_for_the_token_that_came_meanwhile() -> None:
    session, effects = feed(new_session(), join())
    first, prepared = prepared_for(effects)
    token = Frame(TOPIC, "access_token", {"access_token": "alice"}, "2", "1")
    session, _ = feed(session, token)
    session, effects = core.on_prepared(session, first.key, first.epoch, prepared, SETTINGS)
    (again,) = effects
    assert isinstance(again, Prepare)
    assert (again.claims, again.requests) == (TOKENS["alice"], first.requests)
    _, effects = core.on_prepared(session, again.key, again.epoch, prepared, SETTINGS)
    assert effects[0] == Subscribe(1, TOPIC, TOKENS["alice"], prepared)


def test_a_join_that_cannot_be_true_now_is_an_error() -> None:
    session, effects = feed(new_session(), join())
    prepare, _ = prepared_for(effects)
    session, effects = core.on_refused(session, prepare.key, LogNotReadyError())
    assert effects[0] == Unsubscribe(prepare.key)
    assert reasons(effects)[0].startswith("UnableToConnectToProject: Changes are not being read")
    assert not session.channels


def test_leaving_is_confirmed_and_then_closed() -> None:
    session, effects = feed(joined(), Frame(TOPIC, "phx_leave", {}, "2", "1"))
    assert effects[0] == Unsubscribe(1)
    assert [event for event, _ in sent(effects)] == ["phx_reply", "phx_close"]
    assert not session.channels


def test_unknown_events_are_ignored_and_unknown_topics_told() -> None:
    session = joined()
    assert feed(session, Frame(TOPIC, "anything", {}, "3"))[1] == []
    _, effects = feed(session, Frame("realtime:other", "anything", {}, "3"))
    assert reasons(effects) == ["unmatched topic"]


def test_a_new_token_replaces_the_claims() -> None:
    frame = Frame(TOPIC, "access_token", {"access_token": "alice"})
    session, effects = feed(joined(), frame)
    assert effects == [Reauthorize(1, TOKENS["alice"])]
    assert session.channels[TOPIC].claims == TOKENS["alice"]


@pytest.mark.parametrize("token", [None, "sb_key", "short", "", 7])
def test_a_token_that_says_nothing_new_is_ignored(token: Any) -> None:
    session = joined(access_token="short")
    after, effects = feed(session, Frame(TOPIC, "access_token", {"access_token": token}))
    assert (after.channels, effects) == (session.channels, [])


@pytest.mark.parametrize(
    ("token", "message"),
    [("forged", "not a valid JWT"), ("old", "Token has expired 5 seconds ago")],
)
def test_a_bad_token_shuts_the_channel(token: str, message: str) -> None:
    session, effects = feed(joined(), Frame(TOPIC, "access_token", {"access_token": token}))
    assert effects[0] == Unsubscribe(1)
    (_, system), (event, _) = sent(effects)
    assert (system["extension"], system["status"], event) == ("system", "error", "phx_close")
    assert message in system["message"]
    assert not session.channels


def test_an_expired_channel_is_shut_and_the_others_stay() -> None:
    session, _ = feed(joined(access_token="short"), join("realtime:other", "2"))
    assert core.deadline_s(session, SETTINGS) == NOW_S + 30
    assert core.on_time(session, NOW_S + 29, SETTINGS) == (session, [])
    session, effects = core.on_time(session, NOW_S + 30, SETTINGS)
    assert effects[0] == Unsubscribe(1)
    assert list(session.channels) == ["realtime:other"]


def test_a_silent_socket_is_closed() -> None:
    session = core.on_heard(new_session(), NOW_S + 10)
    due_s = NOW_S + 10 + SETTINGS.idle_timeout_s
    assert core.deadline_s(session, SETTINGS) == due_s
    assert core.on_time(session, due_s, SETTINGS)[1] == [Close(Closing.IDLE)]
