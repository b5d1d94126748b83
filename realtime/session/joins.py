"""Joining a topic: what is asked for, of whom it must be asked, and the answers. Pure.

phx_join → (private: Admit → on_admitted) → Prepare → on_prepared: Subscribe, Enter, reply
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from butterbase.realtime.changes.subscriptions import (
    ChangeRequest,
    number,
    parse_entry,
    read_position_of,
)
from butterbase.realtime.errors import (
    InvalidPositionError,
    InvalidReplayError,
    InvalidSubscriptionError,
    ResyncRequiredError,
)
from butterbase.realtime.session.channels import (
    Authenticate,
    admit,
    expired,
    is_expired,
    shut,
    token_of,
)
from butterbase.realtime.session.config import parse_config
from butterbase.realtime.session.effects import (
    AwaitLog,
    Close,
    Effect,
    Enter,
    Permissions,
    Permit,
    Prepare,
    Prepared,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from butterbase.realtime.session.protocol import Closing, Frame
from butterbase.realtime.session.rates import Rate, take
from butterbase.realtime.session.replies import channel_reply, closed, refusal, system
from butterbase.realtime.session.state import (
    TOPIC_PREFIX,
    Channel,
    Session,
    Step,
    by_key,
    with_channel,
    without_channel,
)
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.errors import ButterbaseError, DatabaseError, InvalidTokenError

NOT_READABLE: Final = "You do not have permissions to read from this Channel topic: "
NO_LONGER_READABLE: Final = "You no longer have permission to read from this Channel topic: "
UNREACHABLE: Final = "Realtime was unable to connect to the project database"


def join(
    session: Session,
    frame: Frame,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Step:
    bucket = take(session.joins, Rate(settings.join_rate_max, 1.0), now_s)
    if bucket is None:
        reason = "ClientJoinRateLimitReached: Too many joins per second"
        return session, [refusal(frame, reason), Close(Closing.TOO_MANY_JOINS)]
    session = replace(session, joins=bucket)
    effects: list[Effect] = []
    previous = session.channels.get(frame.topic)
    if previous is not None:
        session = without_channel(session, previous)
        effects = [Unsubscribe(previous.key), closed(previous)]
    channel = _new_channel(session, frame, now_s, authenticate, settings)
    if isinstance(channel, str):
        return session, [*effects, refusal(frame, channel)]
    session = replace(with_channel(session, channel), next_key=session.next_key + 1)
    return session, [*effects, *_first_question(channel, settings)]


def _new_channel(
    session: Session,
    frame: Frame,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Channel | str:
    """The channel, or why there is none."""
    entries = _entries(frame.payload)
    if reason := _reason_against(session, frame.topic, entries, settings):
        return reason
    try:
        config = parse_config(frame.payload)
        since = read_position_of(_config(frame.payload), entries)
        token = token_of(frame.payload) or session.token
        claims = session.claims if token == session.token else authenticate(token)
    except InvalidReplayError as error:
        return f"UnableToReplayMessages: {error.message}"
    except InvalidPositionError as error:
        return f"InvalidPosition: {error.message}"
    except InvalidTokenError as error:
        return f"InvalidJWTToken: {error.message}"
    if is_expired(claims, now_s):
        return f"InvalidJWTToken: {expired(claims, now_s)}"
    return Channel(
        key=session.next_key,
        topic=frame.topic,
        ref=frame.ref,
        join_ref=frame.join_ref if frame.join_ref is not None else frame.ref,
        claims=claims,
        token=token,
        config=config,
        entries=entries,
        problems=_parse(entries, settings)[1],
        since=since,
    )


def _reason_against(
    session: Session, topic: str, entries: tuple[dict[str, Any], ...], settings: RealtimeSettings
) -> str:
    if not topic.startswith(TOPIC_PREFIX):
        return "unmatched topic"
    if topic == TOPIC_PREFIX:
        return "TopicNameRequired: You must provide a topic name"
    if "\0" in topic:
        return "TopicNameInvalid: A topic cannot contain NUL"
    if len(topic.encode()) > settings.topic_bytes_max:
        return f"TopicNameTooLong: at most {settings.topic_bytes_max} bytes name a topic"
    if len(session.channels) >= settings.channel_count_max:
        return "ChannelRateLimitReached: Too many channels"
    if len(entries) > settings.change_request_count_max:
        return f"Too many postgres_changes: at most {settings.change_request_count_max} fit a join"
    return ""


def _entries(payload: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    # What cannot be understood counts as not said, as clients of other servers expect.
    changes = _config(payload).get("postgres_changes")
    if not isinstance(changes, list):
        return ()
    return tuple(entry for entry in changes if isinstance(entry, dict))


def _config(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    config = payload.get("config")
    return config if isinstance(config, dict) else {}


def _parse(
    entries: tuple[dict[str, Any], ...], settings: RealtimeSettings
) -> tuple[tuple[ChangeRequest, ...], tuple[str, ...]]:
    requests, problems = [], []
    for id_, entry in zip(number(entries), entries, strict=True):
        try:
            requests.append(parse_entry(id_, entry, settings.schemas))
        except InvalidSubscriptionError as error:
            problems.append(error.message)
    return tuple(requests), tuple(problems)


def _first_question(channel: Channel, settings: RealtimeSettings) -> list[Effect]:
    return [admit(channel)] if channel.config.is_private else [_prepare(channel, settings)]


def _prepare(channel: Channel, settings: RealtimeSettings) -> Prepare:
    requests, _ = _parse(channel.entries, settings)
    return Prepare(channel.key, channel.ref, channel.claims, requests, channel.since, channel.epoch)


# The answers


def on_admitted(
    session: Session, key: int, epoch: int, permissions: Permissions, settings: RealtimeSettings
) -> Step:
    """What the channel may read, when it joins and with each new token."""
    channel = by_key(session, key)
    if channel is None or channel.epoch != epoch:
        return session, []
    if channel.is_joined:
        return _admitted_again(session, channel, permissions)
    is_replay_denied = channel.config.replay is not None and not permissions.broadcast
    if not _may_read(channel, permissions) or is_replay_denied:
        return refuse(session, channel, f"Unauthorized: {NOT_READABLE}{channel.subtopic}")
    channel = replace(channel, permissions=permissions)
    return with_channel(session, channel), [_prepare(channel, settings)]


def _may_read(channel: Channel, permissions: Permissions) -> bool:
    return permissions.broadcast or (channel.config.has_presence and permissions.presence)


def _admitted_again(session: Session, channel: Channel, permissions: Permissions) -> Step:
    before = channel.permissions
    assert before is not None, "a private channel is joined with permissions"
    if not _may_read(channel, permissions):
        return shut(session, channel, NOT_READABLE + channel.subtopic)
    is_less = (before.broadcast and not permissions.broadcast) or (
        channel.config.has_presence and before.presence and not permissions.presence
    )
    if is_less:
        return shut(session, channel, NO_LONGER_READABLE + channel.subtopic)
    permit = Permit(channel.key, permissions.broadcast, permissions.presence)
    return with_channel(session, replace(channel, permissions=permissions)), [permit]


def on_not_admitted(session: Session, key: int, epoch: int, error: ButterbaseError) -> Step:
    """The question could not be answered: nobody is let in, and nobody stays."""
    channel = by_key(session, key)
    if channel is None or channel.epoch != epoch:
        return session, []
    if channel.is_joined:
        is_policy = isinstance(error, DatabaseError)
        message = NOT_READABLE + channel.subtopic if is_policy else UNREACHABLE
        return shut(session, channel, message)
    return refuse(session, channel, _reason_of(error, channel))


def _reason_of(error: ButterbaseError, channel: Channel) -> str:
    match error:
        case InvalidTokenError():
            return f"InvalidJWTToken: {error.message}"
        case InvalidReplayError():
            return f"UnableToReplayMessages: {error.message}"
        case DatabaseError():
            return f"Unauthorized: {NOT_READABLE}{channel.subtopic}"
        case _:
            return f"UnableToConnectToProject: {error.public_message}"


def on_prepared(
    session: Session, key: int, epoch: int, prepared: Prepared, settings: RealtimeSettings
) -> Step:
    """Subscribe, then say so. Nothing happens when the channel was left meanwhile."""
    channel = by_key(session, key)
    if channel is None or channel.is_joined:  # asked twice, for the sake of a new token
        return session, []
    if channel.epoch != epoch:
        # What was said is said of another caller. Into a private channel it is admitted first.
        return session, [] if channel.config.is_private else [_prepare(channel, settings)]
    entries = [
        {**entry, "id": id_}
        for entry, id_ in zip(channel.entries, number(channel.entries), strict=True)
    ]
    response: dict[str, Any] = {"postgres_changes": entries}
    if entries:
        response["position"] = str(prepared.since)
    effects: list[Effect] = [
        Subscribe(key, channel.topic, channel.claims, prepared),
        enter(channel),
        channel_reply(channel, channel.ref, "ok", response),
    ]
    problems = (*channel.problems, *prepared.problems)
    effects += [system(channel, "postgres_changes", "error", text) for text in problems]
    if entries and not problems:
        effects.append(system(channel, "postgres_changes", "ok", "Subscribed to PostgreSQL"))
    effects.append(Welcome(key))
    if channel.config.is_log_awaited:
        effects.append(AwaitLog(key))
    # What was asked for is told once, and would only be held on to.
    channel = replace(channel, is_joined=True, entries=(), problems=())
    return with_channel(session, channel), effects


def enter(channel: Channel) -> Enter:
    permissions = channel.permissions or Permissions(broadcast=True, presence=True)
    return Enter(
        channel.key,
        channel.topic,
        is_private=channel.config.is_private,
        hears=permissions.broadcast,
        sees=channel.config.has_presence and permissions.presence,
        may_see=permissions.presence,
        presence_key=channel.config.presence_key,
    )


def on_refused(session: Session, key: int, error: ButterbaseError) -> Step:
    """The join cannot be true now; the client tries again by itself."""
    channel = by_key(session, key)
    if channel is None:
        return session, []
    if isinstance(error, ResyncRequiredError):
        more = {"code": error.code, "position": error.position}
        return refuse(session, channel, f"ResyncRequired: {error.message}", more)
    return refuse(session, channel, _reason_of(error, channel))


def refuse(
    session: Session, channel: Channel, reason: str, more: Mapping[str, str] | None = None
) -> Step:
    """Answer the join with an error."""
    return without_channel(session, channel), [
        Unsubscribe(channel.key),
        channel_reply(channel, channel.ref, "error", {"reason": reason, **(more or {})}),
    ]
