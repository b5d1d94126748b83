"""Phoenix messages as bytes: the serializers of vsn 1.0.0 (objects) and 2.0.0 (arrays).

https://hexdocs.pm/phoenix/writing_a_channels_client.html
"""

import enum
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct
from websockets.frames import OP_TEXT, CloseCode
from websockets.frames import Frame as WebsocketFrame

from butterbase.realtime.errors import (
    InvalidFrameError,
    MissingKeyError,
    TooManyConnectionsError,
    UnknownAppError,
    UnsupportedVersionError,
)
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
)

Ref: TypeAlias = str | int | None
"""A client's own number for a message; its reply repeats it."""


class Version(enum.Enum):
    V1 = "1.0.0"
    V2 = "2.0.0"


class Frame(Struct, frozen=True):
    """A message from a client."""

    topic: str
    event: str
    payload: dict[str, Any]
    ref: Ref = None
    join_ref: Ref = None


class Message(Struct, frozen=True):
    """A message to a client. `payload` is anything that msgspec writes as JSON."""

    topic: str
    event: str
    payload: Any
    ref: Ref = None
    join_ref: Ref = None
    """Told to clients of 2.0.0 only."""


class Closing(enum.IntEnum):
    """Why we close a socket: https://www.iana.org/assignments/websocket/websocket.xhtml"""

    IDLE = CloseCode.GOING_AWAY
    RESTART = CloseCode.SERVICE_RESTART
    OVERLOADED = CloseCode.TRY_AGAIN_LATER
    FAILED = CloseCode.INTERNAL_ERROR
    INVALID_TEXT = CloseCode.INVALID_DATA
    SESSION_ENDED = CloseCode.POLICY_VIOLATION


HANDSHAKE_STATUS: Final[dict[type, int]] = {
    InvalidTokenError: 401,
    MissingKeyError: 401,
    UnknownAppError: 404,
    UnsupportedVersionError: 400,
    TooManyConnectionsError: 429,
    DatabaseUnavailableError: 503,
    ButterbaseError: 500,
}
"""HTTP statuses of refused upgrades, read along the error's MRO."""

_V1 = msgspec.json.Decoder(Frame)
_V2 = msgspec.json.Decoder(tuple[Ref, Ref, str, str, dict[str, Any]])
_ENCODER = msgspec.json.Encoder()


def decode(data: bytes, version: Version) -> Frame:
    """Decode one text frame. Raises InvalidFrameError."""
    try:
        if version is Version.V1:
            return _V1.decode(data)
        join_ref, ref, topic, event, payload = _V2.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidFrameError(f"not a Phoenix {version.value} message: {error}") from error
    return Frame(topic, event, payload, ref, join_ref)


def encode(message: Message, version: Version) -> bytes:
    """Encode one text frame's payload.

    A client of 1.0.0 is sent `ref` even when it is null: some drop messages without the field.
    """
    if version is Version.V2:
        return _ENCODER.encode(
            [message.join_ref, message.ref, message.topic, message.event, message.payload]
        )
    return _ENCODER.encode(
        {
            "topic": message.topic,
            "event": message.event,
            "payload": message.payload,
            "ref": message.ref,
        }
    )


def websocket_frame(text: bytes) -> bytes:
    """The text as an unmasked, unfragmented websocket frame: the same bytes for every socket."""
    return WebsocketFrame(OP_TEXT, text).serialize(mask=False)
