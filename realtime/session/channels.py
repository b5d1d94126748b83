"""The life of a channel that was joined: its token, its leaving, its end. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from butterbase.realtime.session.effects import Admit, Authorize, Effect, Reauthorize, Unsubscribe
from butterbase.realtime.session.protocol import Frame
from butterbase.realtime.session.replies import closed, reply, system
from butterbase.realtime.session.state import (
    Channel,
    Session,
    Step,
    by_key,
    with_channel,
    without_channel,
)
from butterbase.sql.claims import Claims
from butterbase.sql.errors import InvalidTokenError

Authenticate: TypeAlias = Callable[[str], Claims]
"""Raises InvalidTokenError."""

_PUBLIC_KEY_PREFIX: Final = "sb_"  # a key of the app sent as if it were a user's token


def leave(session: Session, frame: Frame, channel: Channel | None) -> Step:
    answer = reply(frame, "ok", {})
    if channel is None:
        return session, [answer]
    return without_channel(session, channel), [Unsubscribe(channel.key), answer, closed(channel)]


def shut(session: Session, channel: Channel, message: str) -> Step:
    """Close the channel and say why."""
    return without_channel(session, channel), [
        Unsubscribe(channel.key),
        system(channel, "system", "error", message),
        closed(channel),
    ]


def on_log_read(session: Session, key: int, *, is_read: bool) -> Step:
    """What the channel waited for has come, or has not in time."""
    channel = by_key(session, key)
    if channel is None:
        return session, []
    if not is_read:
        return shut(session, channel, "Replication connection was not established in time")
    return session, [system(channel, "system", "ok", "Replication connection established")]


# Tokens


def token_of(payload: Mapping[str, Any]) -> str | None:
    """The caller's own token, if the payload has one."""
    for name in ("access_token", "user_token"):
        token = payload.get(name)
        if isinstance(token, str) and token and not token.startswith(_PUBLIC_KEY_PREFIX):
            return token
    return None


def change_token(
    session: Session,
    channel: Channel,
    payload: Mapping[str, Any],
    now_s: float,
    authenticate: Authenticate,
) -> Step:
    token = token_of(payload)
    if token is None or token == channel.token:
        return session, []
    try:
        claims = authenticate(token)
    except InvalidTokenError as error:
        return shut(session, channel, error.message)
    if is_expired(claims, now_s):
        return shut(session, channel, expired(claims, now_s))
    # What was allowed with the former token is asked about anew, also what waits for an answer.
    channel = replace(channel, claims=claims, token=token, epoch=channel.epoch + 1, writes={})
    effects: list[Effect] = [Reauthorize(channel.key, claims)]
    if channel.config.is_private:
        effects.append(admit(channel))
        effects += authorize_waiting(session, channel)
    return with_channel(session, channel), effects


def admit(channel: Channel) -> Admit:
    """Ask what the channel may read: when it joins, and with each new token."""
    replay = None if channel.is_joined else channel.config.replay
    return Admit(
        channel.key, channel.epoch, channel.claims, channel.topic, channel.subtopic, replay
    )


def authorize(channel: Channel, extension: str) -> Authorize:
    """Ask whether the channel may write."""
    return Authorize(channel.key, channel.epoch, channel.claims, channel.subtopic, extension)


def authorize_waiting(session: Session, channel: Channel) -> list[Effect]:
    asked = dict.fromkeys(w.extension for w in session.waiting if w.key == channel.key)
    return [authorize(channel, extension) for extension in asked]


def is_expired(claims: Claims, now_s: float) -> bool:
    return claims.expires_at is not None and claims.expires_at <= now_s


def expired(claims: Claims, now_s: float) -> str:
    assert claims.expires_at is not None
    return f"Token has expired {max(0, int(now_s - claims.expires_at))} seconds ago"
