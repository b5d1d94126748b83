"""A message to all who are in a room, and its form for each version of the serializer."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from websockets.frames import OP_BINARY, OP_TEXT

from butterbase.realtime.session.protocol import (
    FIELD_BYTES_MAX,
    Message,
    Version,
    encode,
    encode_user_broadcast,
    websocket_frame,
)

EVENT: Final = "broadcast"

_ENCODER = msgspec.json.Encoder()


class Broadcast(Struct, frozen=True):
    """`payload` is JSON, or with `is_binary` any bytes."""

    event: str
    payload: bytes
    is_binary: bool = False
    id: str | None = None
    """Of one that the database keeps, in `realtime.messages`."""
    is_replayed: bool = False
    body: bytes = b""
    """What a client sent as JSON altogether, which goes on as it is; then there is no payload."""

    @property
    def size_bytes(self) -> int:
        return len(self.payload) + len(self.body)


def broadcast_of(payload: Mapping[str, Any]) -> Broadcast:
    """Of a client's message in JSON: {type, event, payload, …}."""
    # `meta` is the server's word: of messages that it keeps.
    told = {name: value for name, value in payload.items() if name != "meta"}
    event = payload.get("event")
    return Broadcast(event if isinstance(event, str) else "", b"", body=_ENCODER.encode(told))


def frame_of(broadcast: Broadcast, topic: str, version: Version) -> bytes | None:
    """A websocket frame to whoever joined the topic; None where the version cannot say it."""
    if not broadcast.body and version is Version.V2:
        fields = topic.encode(), broadcast.event.encode(), _meta(broadcast)
        if all(len(field) <= FIELD_BYTES_MAX for field in fields):
            data = encode_user_broadcast(*fields, broadcast.payload, is_binary=broadcast.is_binary)
            return websocket_frame(data, OP_BINARY)
    if broadcast.is_binary:
        return None
    message = Message(topic, EVENT, Raw(broadcast.body or _body(broadcast)))
    return websocket_frame(encode(message, version), OP_TEXT)


def _body(broadcast: Broadcast) -> bytes:
    body: dict[str, Any] = {
        "type": EVENT,
        "event": broadcast.event,
        "payload": Raw(broadcast.payload),
    }
    if broadcast.id is not None:
        body["meta"] = _meta_of(broadcast)
    return _ENCODER.encode(body)


def _meta(broadcast: Broadcast) -> bytes:
    return b"" if broadcast.id is None else _ENCODER.encode(_meta_of(broadcast))


def _meta_of(broadcast: Broadcast) -> dict[str, Any]:
    meta: dict[str, Any] = {"id": broadcast.id}
    if broadcast.is_replayed:
        meta["replayed"] = True
    return meta
