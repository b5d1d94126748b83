"""What is known of one socket: its session, with the channels that were joined or are being."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.session.config import JoinConfig
from butterbase.realtime.session.effects import Effect, Permissions
from butterbase.realtime.session.protocol import Ref, Version
from butterbase.realtime.session.rates import FULL, Bucket
from butterbase.realtime.window.position import Position
from butterbase.sql.claims import Claims

TOPIC_PREFIX: Final = "realtime:"


class Channel(Struct, frozen=True):
    """A topic that was joined, or is being joined."""

    key: int
    """Of the session's own making: a topic may be joined again with the same references."""
    topic: str
    ref: Ref
    """The join's, to be repeated in its reply."""
    join_ref: Ref
    claims: Claims
    token: str
    config: JoinConfig = JoinConfig()
    is_joined: bool = False
    entries: tuple[dict[str, Any], ...] = ()
    """The join's `postgres_changes`, to be repeated in the reply."""
    problems: tuple[str, ...] = ()
    since: Position | None = None
    """Where to go on with changes; None: with those to come."""
    epoch: int = 0
    """Counts its tokens."""
    permissions: Permissions | None = None
    """Of a private channel, once they are known."""
    writes: Mapping[str, bool] = {}
    """Of a private channel: by extension whether it may write, as far as was asked."""
    presence_calls: Bucket = FULL

    @property
    def subtopic(self) -> str:
        """As policies and the database know it."""
        return self.topic.removeprefix(TOPIC_PREFIX)


class Waiting(Struct, frozen=True):
    """A message into a private channel, until it is known whether it may be sent."""

    key: int
    extension: str
    ref: Ref
    content: Broadcast | dict[str, Any] | None
    """A broadcast, or the properties with which to be present, or None to be no more."""
    size_bytes: int


class Session(Struct, frozen=True):
    version: Version
    claims: Claims
    token: str
    """The handshake's: channels without a token of their own use it."""
    heard_at_s: float
    channels: Mapping[str, Channel] = {}
    next_key: int = 1
    joins: Bucket = FULL
    messages: Bucket = FULL
    waiting: tuple[Waiting, ...] = ()


Step: TypeAlias = tuple[Session, list[Effect]]


def by_key(session: Session, key: int) -> Channel | None:
    return next((c for c in session.channels.values() if c.key == key), None)


def with_channel(session: Session, channel: Channel) -> Session:
    return replace(session, channels={**session.channels, channel.topic: channel})


def without_channel(session: Session, channel: Channel) -> Session:
    channels = {topic: c for topic, c in session.channels.items() if c.key != channel.key}
    waiting = session.waiting
    if waiting:
        waiting = tuple(w for w in waiting if w.key != channel.key)
    return replace(session, channels=channels, waiting=waiting)
