"""Phoenix messages as bytes: the serializers of vsn 1.0.0 (objects) and 2.0.0 (arrays).

In 2.0.0 broadcasts have a binary form besides, in which each length is one byte:

    3 join_ref ref topic event meta (their lengths) encoding, then themselves and the payload
    4 topic event meta (their lengths) encoding, then themselves and the payload

The first comes from clients, the second goes to them; the encoding is 0 for bytes and 1 for JSON.
https://hexdocs.pm/phoenix/writing_a_channels_client.html
"""

import enum
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct
from websockets.frames import OP_TEXT, CloseCode, Opcode
from websockets.frames import Frame as WebsocketFrame

from butterbase.realtime.errors import (
    InvalidFrameError,
    MissingKeyError,
    TooManyConnectionsError,
    UnknownAppError,
    UnreadableRequestError,
    UnsupportedVersionError,
)
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
)

FIELD_BYTES_MAX: Final = 255
"""Of a topic, an event or a reference in a binary message."""

Ref: TypeAlias = Annotated[str, Meta(max_length=FIELD_BYTES_MAX)] | int | None
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


class Push(Struct, frozen=True):
    """A broadcast from a client in its binary form."""

    topic: str
    event: str
    payload: bytes
    """Valid JSON, unless it `is_binary`."""
    is_binary: bool
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
    TOO_MANY_JOINS = 4429  # of the range that is free for applications


HANDSHAKE_STATUS: Final[dict[type, int]] = {
    InvalidTokenError: 401,
    MissingKeyError: 401,
    UnknownAppError: 404,
    UnsupportedVersionError: 400,
    UnreadableRequestError: 400,
    TooManyConnectionsError: 429,
    DatabaseUnavailableError: 503,
    ButterbaseError: 500,
}
"""HTTP statuses of refused upgrades, read along the error's MRO."""

_V1 = msgspec.json.Decoder(Frame)
_V2 = msgspec.json.Decoder(tuple[Ref, Ref, str, str, dict[str, Any]])
_JSON = msgspec.json.Decoder(Raw)  # checks that it is JSON, and keeps the text
_ENCODER = msgspec.json.Encoder()

_PUSH, _BROADCAST = 3, 4
_PUSH_HEAD_BYTES: Final = 7
_BYTES, _TEXT = 0, 1


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


def decode_binary(data: bytes, version: Version) -> Push:
    """Decode one binary frame. Raises InvalidFrameError."""
    if version is not Version.V2:
        raise InvalidFrameError(f"a binary frame in version {version.value}")
    if len(data) < _PUSH_HEAD_BYTES or data[0] != _PUSH:
        raise InvalidFrameError("a binary frame of an unknown kind")
    *lengths, encoding = data[1:_PUSH_HEAD_BYTES]
    fields, at = [], _PUSH_HEAD_BYTES
    for length in lengths:
        fields.append(data[at : at + length])
        at += length
    if at > len(data) or encoding not in (_BYTES, _TEXT):
        raise InvalidFrameError("a binary frame that ends before its fields do")
    payload = data[at:]
    try:
        join_ref, ref, topic, event, meta = (field.decode() for field in fields)
        if meta:
            _check_json(meta.encode())
        if encoding == _TEXT:
            payload = _check_json(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidFrameError(f"not a binary frame: {error}") from error
    return Push(topic, event, payload, encoding == _BYTES, ref or None, join_ref or None)


def _check_json(data: bytes) -> bytes:
    data.decode()  # which the decoder leaves unchecked where it does not make text of it
    return bytes(_JSON.decode(data))


def encode_user_broadcast(
    topic: bytes, event: bytes, meta: bytes, payload: bytes, *, is_binary: bool
) -> bytes:
    """Encode a broadcast as one binary frame's payload; no field is longer than it may be."""
    encoding = _BYTES if is_binary else _TEXT
    head = bytes([_BROADCAST, len(topic), len(event), len(meta), encoding])
    return b"".join([head, topic, event, meta, payload])


def websocket_frame(data: bytes, opcode: Opcode = OP_TEXT) -> bytes:
    """The data as an unmasked, unfragmented websocket frame: the same bytes for every socket."""
    return WebsocketFrame(opcode, data).serialize(mask=False)
