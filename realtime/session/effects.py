"""What a session asks of its edge, and the answers that come back."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from butterbase.realtime.changes.matching import Binding
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.session.config import Replay
from butterbase.realtime.session.protocol import Closing, Message, Ref
from butterbase.realtime.window.position import Position
from butterbase.sql.claims import Claims


class Prepared(Struct, frozen=True):
    """What a join's requests came to."""

    bindings: tuple[Binding, ...]
    problems: tuple[str, ...]
    since: Position
    """What is behind it is sent."""


class Permissions(Struct, frozen=True):
    """What of a private channel the caller may read."""

    broadcast: bool
    presence: bool


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
    since: Position | None = None
    """Where to go on; None: with changes to come."""
    epoch: int = 0
    """As in Admit."""


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


class AnswerHeartbeat(Struct, frozen=True):
    """Reply, and tell how far each channel's changes have come."""

    ref: Ref
    join_ref: Ref


# Rooms


class Admit(Struct, frozen=True):
    """Ask what the caller may read of a private topic; then `on_admitted` or `on_not_admitted`.

    What is broadcast meanwhile is held for the channel, and what is to be replayed is kept, both
    for `Welcome`.
    """

    key: int
    epoch: int
    """Counts the channel's tokens: what was asked with an older one does not matter any more."""
    claims: Claims
    topic: str
    subtopic: str
    """As policies know it."""
    replay: Replay | None = None


class Enter(Struct, frozen=True):
    """From now on the channel is in its room. It stands before the reply."""

    key: int
    topic: str
    is_private: bool
    hears: bool
    """Broadcasts go to it."""
    sees: bool
    """Presences go to it."""
    may_see: bool
    """Presences may go to it, once it is present itself."""
    presence_key: str
    """Empty: one is made for it."""


class Welcome(Struct, frozen=True):
    """Send what the room has for who has just entered. It stands behind the reply."""

    key: int


class Permit(Struct, frozen=True):
    """The permissions of a channel in its room have changed."""

    key: int
    hears: bool
    may_see: bool


class Emit(Struct, frozen=True):
    """Send to all who are in the channel's room, itself only when `is_echoed`."""

    key: int
    broadcast: Broadcast
    is_echoed: bool


class Track(Struct, frozen=True):
    """Be present with these properties, or with others than before; then `on_tracked`."""

    key: int
    ref: Ref
    properties: Mapping[str, Any]


class Untrack(Struct, frozen=True):
    key: int


class Authorize(Struct, frozen=True):
    """Ask whether the caller may write to a private topic; then `on_authorized`."""

    key: int
    epoch: int
    claims: Claims
    subtopic: str
    extension: str


class AwaitLog(Struct, frozen=True):
    """Wait until the log is read; then `on_log_read`."""

    key: int


Effect: TypeAlias = (
    Send
    | Close
    | Prepare
    | Subscribe
    | Reauthorize
    | Unsubscribe
    | AnswerHeartbeat
    | Admit
    | Enter
    | Welcome
    | Permit
    | Emit
    | Track
    | Untrack
    | Authorize
    | AwaitLog
)
