"""What clients send into channels: broadcasts and presences. Pure.

Into a private channel nothing goes before the policies were asked. The first message of a kind asks
and waits, and so do those behind it; the answer holds until the channel has another token.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from butterbase.realtime.rooms.broadcast import Broadcast, broadcast_of
from butterbase.realtime.session.channels import authorize, shut
from butterbase.realtime.session.effects import Effect, Emit, Track, Untrack
from butterbase.realtime.session.protocol import Frame, Push, Ref
from butterbase.realtime.session.rates import Rate, take
from butterbase.realtime.session.replies import channel_reply
from butterbase.realtime.session.state import Channel, Session, Step, Waiting, by_key, with_channel
from butterbase.realtime.settings import RealtimeSettings

BROADCAST: Final = "broadcast"
PRESENCE: Final = "presence"
"""The extensions by which policies on `realtime.messages` tell them apart."""

NOT_WRITABLE: Final = "You do not have permissions to write to this Channel topic: "


def broadcast_push(
    session: Session, channel: Channel, push: Push, settings: RealtimeSettings
) -> Step:
    """A broadcast in the binary form."""
    broadcast = Broadcast(push.event, push.payload, is_binary=push.is_binary)
    return _broadcast(session, channel, push.ref, broadcast, settings)


def broadcast_frame(
    session: Session, channel: Channel, frame: Frame, settings: RealtimeSettings
) -> Step:
    """A broadcast in JSON."""
    return _broadcast(session, channel, frame.ref, broadcast_of(frame.payload), settings)


def _broadcast(
    session: Session,
    channel: Channel,
    ref: Ref,
    broadcast: Broadcast,
    settings: RealtimeSettings,
) -> Step:
    if not channel.config.is_private:
        return session, _sent(channel, ref, broadcast, settings)
    is_allowed = channel.writes.get(BROADCAST)
    if is_allowed is None:
        waiting = Waiting(channel.key, BROADCAST, ref, broadcast, broadcast.size_bytes)
        return _wait(session, channel, waiting, settings)
    # A denial is silent, as it is in SQL to who may not see.
    return session, _sent(channel, ref, broadcast, settings) if is_allowed else []


def _sent(
    channel: Channel, ref: Ref, broadcast: Broadcast, settings: RealtimeSettings
) -> list[Effect]:
    config = channel.config
    if broadcast.size_bytes > settings.payload_bytes_max:
        refusal = channel_reply(channel, ref, "error", "payload_size_exceeded")
        return [refusal] if config.is_acknowledged else []
    effects: list[Effect] = [Emit(channel.key, broadcast, config.is_echoed)]
    if config.is_acknowledged:
        effects.append(channel_reply(channel, ref, "ok", {}))
    return effects


# Presence


def presence_frame(
    session: Session,
    channel: Channel,
    frame: Frame,
    now_s: float,
    settings: RealtimeSettings,
) -> Step:
    rate = Rate(settings.presence_call_count_max, settings.presence_window_s)
    bucket = take(channel.presence_calls, rate, now_s)
    if bucket is None:
        return shut(session, channel, "Client presence rate limit exceeded")
    channel = replace(channel, presence_calls=bucket)
    session = with_channel(session, channel)
    event = frame.payload.get("event")
    match event.lower() if isinstance(event, str) else event:
        case "track":
            properties = frame.payload.get("payload", {})
            if not isinstance(properties, dict):
                reason = {"reason": "Presence track payload must be a map"}
                return session, [channel_reply(channel, frame.ref, "error", reason)]
            size_bytes = len(msgspec.json.encode(properties))
            if size_bytes > settings.presence_bytes_max:
                return shut(session, channel, "Track message size exceeded")
            waiting = Waiting(channel.key, PRESENCE, frame.ref, properties, size_bytes)
        case "untrack":
            waiting = Waiting(channel.key, PRESENCE, frame.ref, None, 0)
        case None:
            return session, [channel_reply(channel, frame.ref, "ok", {})]
        case _:
            reason = {"reason": "Unknown presence event"}
            return session, [channel_reply(channel, frame.ref, "error", reason)]
    return _present(session, channel, waiting, settings)


def _present(
    session: Session, channel: Channel, wanted: Waiting, settings: RealtimeSettings
) -> Step:
    is_allowed = channel.writes.get(PRESENCE)
    if channel.config.is_private and is_allowed is None:
        is_behind = any(w.key == channel.key and w.extension == PRESENCE for w in session.waiting)
        if wanted.content is not None or is_behind:
            return _wait(session, channel, wanted, settings)
    channel, effects = _presence(channel, wanted, is_allowed=is_allowed is not False)
    return with_channel(session, channel), effects


def _presence(
    channel: Channel, wanted: Waiting, *, is_allowed: bool
) -> tuple[Channel, list[Effect]]:
    if wanted.content is None:
        return channel, [Untrack(channel.key), channel_reply(channel, wanted.ref, "ok", {})]
    if not is_allowed:
        reason = {"reason": NOT_WRITABLE + channel.subtopic}
        return channel, [channel_reply(channel, wanted.ref, "error", reason)]
    assert not isinstance(wanted.content, Broadcast)
    # Who is present is also told who else is.
    channel = replace(channel, config=replace(channel.config, has_presence=True))
    return channel, [Track(channel.key, wanted.ref, wanted.content)]


def on_tracked(session: Session, key: int, ref: Ref, *, is_present: bool) -> Step:
    """Whether the room has taken it."""
    channel = by_key(session, key)
    if channel is None:
        return session, []
    if is_present:
        return session, [channel_reply(channel, ref, "ok", {})]
    reason = {"reason": "Too much presence in this channel"}
    return session, [channel_reply(channel, ref, "error", reason)]


# Waiting for the policies


def _wait(session: Session, channel: Channel, wanted: Waiting, settings: RealtimeSettings) -> Step:
    """Keep it until the answer comes; what there is no room for is lost like a denied one."""
    size_bytes = wanted.size_bytes + sum(w.size_bytes for w in session.waiting)
    if (
        len(session.waiting) >= settings.waiting_count_max
        or size_bytes > settings.waiting_bytes_max
    ):
        return session, []
    is_asked = any(w.key == wanted.key and w.extension == wanted.extension for w in session.waiting)
    session = replace(session, waiting=(*session.waiting, wanted))
    return session, [] if is_asked else [authorize(channel, wanted.extension)]


def on_authorized(
    session: Session,
    key: int,
    epoch: int,
    extension: str,
    is_allowed: bool | None,
    settings: RealtimeSettings,
) -> Step:
    """Whether the channel may write; None: it could not be asked, and the next message asks."""
    channel = by_key(session, key)
    if channel is None or channel.epoch != epoch:
        return session, []
    mine = [w for w in session.waiting if w.key == key and w.extension == extension]
    session = replace(session, waiting=tuple(w for w in session.waiting if w not in mine))
    if is_allowed is not None:
        channel = replace(channel, writes={**channel.writes, extension: is_allowed})
    effects: list[Effect] = []
    for waiting in mine:
        if isinstance(waiting.content, Broadcast):
            if is_allowed:
                effects += _sent(channel, waiting.ref, waiting.content, settings)
        else:
            channel, more = _presence(channel, waiting, is_allowed=bool(is_allowed))
            effects += more
    return with_channel(session, channel), effects
