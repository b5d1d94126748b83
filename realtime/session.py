"""One socket as (state, effects): joins, leaves, heartbeats, tokens. The server performs effects.

Waiting is an effect too: `Prepare` asks Postgres, and its answer comes back as `on_prepared`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ingest.lsn import LSN
from butterbase.realtime.errors import InvalidSubscriptionError
from butterbase.realtime.matching import Binding
from butterbase.realtime.protocol import Closing, Frame, Message, Ref, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.subscriptions import ChangeRequest, number, parse_entry
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError, InvalidTokenError

Authenticate: TypeAlias = Callable[[str], Claims]
"""Raises InvalidTokenError."""

TOPIC_PREFIX: Final = "realtime:"
_PUBLIC_KEY_PREFIX: Final = "sb_"  # a key of the app sent as if it were a user's token


class Channel(Struct, frozen=True):
    """A topic that was joined, or is being joined."""

    key: int
    """Of the session's own making: a topic may be joined again with the same references."""
    topic: str
    join_ref: Ref
    claims: Claims
    token: str
    is_joined: bool = False
    entries: tuple[dict[str, Any], ...] = ()
    """The join's `postgres_changes`, to be repeated in the reply."""
    problems: tuple[str, ...] = ()


class Session(Struct, frozen=True):
    version: Version
    claims: Claims
    token: str
    """The handshake's: channels without a token of their own use it."""
    heard_at_s: float
    channels: Mapping[str, Channel] = {}
    next_key: int = 1


class Prepared(Struct, frozen=True):
    """What a join's requests came to."""

    bindings: tuple[Binding, ...]
    problems: tuple[str, ...]
    since: LSN
    """Commits up to here are older than the join."""


# Effects


class Send(Struct, frozen=True):
    message: Message


class Close(Struct, frozen=True):
    code: Closing


class Prepare(Struct, frozen=True):
    """Ask Postgres about the requests; then `on_prepared` or `on_refused`."""

    key: int
    ref: Ref
    claims: Claims
    requests: tuple[ChangeRequest, ...]


class Subscribe(Struct, frozen=True):
    """From now on changes go to the channel. It stands before the reply."""

    key: int
    topic: str
    claims: Claims
    prepared: Prepared


class Reauthorize(Struct, frozen=True):
    key: int
    claims: Claims


class Unsubscribe(Struct, frozen=True):
    """Nothing more goes to the channel; what is still being prepared for it is given up."""

    key: int


Effect: TypeAlias = Send | Close | Prepare | Subscribe | Reauthorize | Unsubscribe
Step: TypeAlias = tuple[Session, list[Effect]]


def on_frame(
    session: Session,
    frame: Frame,
    *,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Step:
    """A message from the client. `now_s` counts from the epoch."""
    session = replace(session, heard_at_s=now_s)
    channel = session.channels.get(frame.topic)
    match frame.event:
        case "heartbeat" if frame.topic == "phoenix":
            return session, [_reply(frame, "ok", {})]
        case "phx_join":
            return _join(session, frame, now_s, authenticate, settings)
        case "phx_leave":
            return _leave(session, frame, channel)
        case _ if channel is None:
            return session, [_reply(frame, "error", {"reason": "unmatched topic"})]
        case "access_token":
            return _change_token(session, channel, frame.payload, now_s, authenticate)
        case _:
            return session, []


def on_heard(session: Session, now_s: float) -> Session:
    """Anything came from the client: a ping, a frame that could not be read."""
    return replace(session, heard_at_s=now_s)


def on_prepared(session: Session, key: int, ref: Ref, prepared: Prepared) -> Step:
    """Subscribe, then say so. Nothing happens when the channel was left meanwhile."""
    channel = _by_key(session, key)
    if channel is None:
        return session, []
    entries = [
        {**entry, "id": id_}
        for entry, id_ in zip(channel.entries, number(channel.entries), strict=True)
    ]
    response = {"postgres_changes": entries}
    effects: list[Effect] = [
        Subscribe(key, channel.topic, channel.claims, prepared),
        Send(_reply_message(channel, ref, "ok", response)),
    ]
    problems = (*channel.problems, *prepared.problems)
    effects += [Send(_system(channel, "postgres_changes", "error", text)) for text in problems]
    if entries and not problems:
        effects.append(Send(_system(channel, "postgres_changes", "ok", "Subscribed to PostgreSQL")))
    return _with(session, replace(channel, is_joined=True)), effects


def on_refused(session: Session, key: int, ref: Ref, error: ButterbaseError) -> Step:
    """The join cannot be true now; the client tries again by itself."""
    channel = _by_key(session, key)
    if channel is None:
        return session, []
    code = "InvalidJWTToken" if isinstance(error, InvalidTokenError) else "UnableToConnectToProject"
    reason = {"reason": f"{code}: {error.message}"}
    return _without(session, channel), [
        Unsubscribe(key),
        Send(_reply_message(channel, ref, "error", reason)),
    ]


def on_time(session: Session, now_s: float, settings: RealtimeSettings) -> Step:
    """Close what has expired: channels by their token, the socket by its silence."""
    if now_s >= session.heard_at_s + settings.idle_timeout_s:
        return session, [Close(Closing.IDLE)]
    effects: list[Effect] = []
    for channel in session.channels.values():
        if is_expired(channel.claims, now_s):
            session, closing = _shut(session, channel, _expired(channel.claims, now_s))
            effects += closing
    return session, effects


def deadline_s(session: Session, settings: RealtimeSettings) -> float:
    """When `on_time` has something to do next, unless the client is heard before."""
    expiries = (channel.claims.expires_at for channel in session.channels.values())
    idle_s = session.heard_at_s + settings.idle_timeout_s
    return min([idle_s, *(at_s for at_s in expiries if at_s is not None)])


def is_expired(claims: Claims, now_s: float) -> bool:
    return claims.expires_at is not None and claims.expires_at <= now_s


# Joining


def _join(
    session: Session,
    frame: Frame,
    now_s: float,
    authenticate: Authenticate,
    settings: RealtimeSettings,
) -> Step:
    effects: list[Effect] = []
    previous = session.channels.get(frame.topic)
    if previous is not None:
        session = _without(session, previous)
        effects = [Unsubscribe(previous.key), Send(_closed(previous))]
    entries = _entries(frame.payload)
    if refusal := _refusal(session, frame.topic, entries, settings):
        return session, [*effects, _reply(frame, "error", {"reason": refusal})]
    token = _token(frame.payload) or session.token
    try:
        claims = session.claims if token == session.token else authenticate(token)
    except InvalidTokenError as error:
        refusal = f"InvalidJWTToken: {error.message}"
        return session, [*effects, _reply(frame, "error", {"reason": refusal})]
    if is_expired(claims, now_s):
        refusal = f"InvalidJWTToken: {_expired(claims, now_s)}"
        return session, [*effects, _reply(frame, "error", {"reason": refusal})]
    requests, problems = _parse(entries, settings)
    channel = Channel(
        key=session.next_key,
        topic=frame.topic,
        join_ref=frame.join_ref if frame.join_ref is not None else frame.ref,
        claims=claims,
        token=token,
        entries=entries,
        problems=problems,
    )
    session = replace(_with(session, channel), next_key=session.next_key + 1)
    return session, [*effects, Prepare(channel.key, frame.ref, claims, requests)]


def _refusal(
    session: Session, topic: str, entries: tuple[dict[str, Any], ...], settings: RealtimeSettings
) -> str:
    if not topic.startswith(TOPIC_PREFIX):
        return "unmatched topic"
    if topic == TOPIC_PREFIX:
        return "TopicNameRequired: You must provide a topic name"
    if len(session.channels) >= settings.channel_count_max:
        return "ChannelRateLimitReached: Too many channels"
    if len(entries) > settings.change_request_count_max:
        return f"Too many postgres_changes: at most {settings.change_request_count_max} fit a join"
    return ""


def _entries(payload: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    # What cannot be understood counts as not said, as clients of other servers expect.
    config = payload.get("config")
    changes = config.get("postgres_changes") if isinstance(config, dict) else None
    if not isinstance(changes, list):
        return ()
    return tuple(entry for entry in changes if isinstance(entry, dict))


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


def _token(payload: Mapping[str, Any]) -> str | None:
    """The caller's own token, if the payload has one."""
    for name in ("access_token", "user_token"):
        token = payload.get(name)
        if isinstance(token, str) and token and not token.startswith(_PUBLIC_KEY_PREFIX):
            return token
    return None


# The rest of a channel's life


def _leave(session: Session, frame: Frame, channel: Channel | None) -> Step:
    reply = _reply(frame, "ok", {})
    if channel is None:
        return session, [reply]
    return _without(session, channel), [Unsubscribe(channel.key), reply, Send(_closed(channel))]


def _change_token(
    session: Session,
    channel: Channel,
    payload: Mapping[str, Any],
    now_s: float,
    authenticate: Authenticate,
) -> Step:
    token = _token(payload)
    if token is None or token == channel.token:
        return session, []
    try:
        claims = authenticate(token)
    except InvalidTokenError as error:
        return _shut(session, channel, error.message)
    if is_expired(claims, now_s):
        return _shut(session, channel, _expired(claims, now_s))
    channel = replace(channel, claims=claims, token=token)
    return _with(session, channel), [Reauthorize(channel.key, claims)]


def _shut(session: Session, channel: Channel, message: str) -> Step:
    return _without(session, channel), [
        Unsubscribe(channel.key),
        Send(_system(channel, "system", "error", message)),
        Send(_closed(channel)),
    ]


def _expired(claims: Claims, now_s: float) -> str:
    assert claims.expires_at is not None
    return f"Token has expired {max(0, int(now_s - claims.expires_at))} seconds ago"


def _by_key(session: Session, key: int) -> Channel | None:
    return next((c for c in session.channels.values() if c.key == key), None)


def _with(session: Session, channel: Channel) -> Session:
    return replace(session, channels={**session.channels, channel.topic: channel})


def _without(session: Session, channel: Channel) -> Session:
    channels = {topic: c for topic, c in session.channels.items() if c.key != channel.key}
    return replace(session, channels=channels)


# Messages


def _reply(frame: Frame, status: str, response: Mapping[str, Any]) -> Send:
    payload = {"status": status, "response": response}
    return Send(Message(frame.topic, "phx_reply", payload, frame.ref, frame.join_ref))


def _reply_message(channel: Channel, ref: Ref, status: str, response: Mapping[str, Any]) -> Message:
    payload = {"status": status, "response": response}
    return Message(channel.topic, "phx_reply", payload, ref, channel.join_ref)


def _closed(channel: Channel) -> Message:
    return Message(channel.topic, "phx_close", {}, channel.join_ref, channel.join_ref)


def _system(channel: Channel, extension: str, status: str, message: str) -> Message:
    payload = {
        "extension": extension,
        "status": status,
        "message": message,
        "channel": channel.topic.removeprefix(TOPIC_PREFIX),
    }
    return Message(channel.topic, "system", payload, None, channel.join_ref)
