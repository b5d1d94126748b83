"""A request's body → the messages to broadcast, or what is wrong with each field. Pure."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Raw, Struct

from butterbase.api.broadcast.errors import BroadcastTypeError, InvalidBroadcastError
from butterbase.realtime.rooms.logged_broadcasts import EmittedMessage
from butterbase.realtime.session.protocol import FIELD_BYTES_MAX
from butterbase.realtime.session.state import TOPIC_PREFIX

BLANK: Final = "can't be blank"
INVALID: Final = "is invalid"
TOO_LARGE: Final = "Payload size exceeds tenant limit"
TOO_LONG: Final = "is too long"

_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_LIST = msgspec.json.Decoder(dict[str, Any])
_JSON = msgspec.json.Decoder(Raw)
_ENCODER = msgspec.json.Encoder()


class Limits(Struct, frozen=True):
    payload_bytes: int
    topic_bytes: int
    """With the prefix that clients join it by."""


def parse_batch(body: bytes, limits: Limits) -> list[EmittedMessage]:
    """Read {"messages": [{topic, event, payload, private?}, …]}. Raises InvalidBroadcastError."""
    try:
        entries = _LIST.decode(body).get("messages")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBroadcastError({"body": [f"is not a JSON object: {error}"]}) from error
    if entries is None or entries == []:
        raise InvalidBroadcastError({"messages": [BLANK]})
    if not isinstance(entries, list):
        raise InvalidBroadcastError({"messages": [INVALID]})
    messages, errors = [], []
    for entry in entries:
        message, wrong = _read(entry, limits)
        errors.append(wrong)
        if message is not None:
            messages.append(message)
    if len(messages) < len(entries):
        raise InvalidBroadcastError({"messages": errors})
    return messages


def _read(entry: object, limits: Limits) -> tuple[EmittedMessage | None, dict[str, list[str]]]:
    if not isinstance(entry, dict):
        return None, {"message": [INVALID]}
    wrong: dict[str, list[str]] = {}
    topic, event = (_name(entry, name, wrong) for name in ("topic", "event"))
    if len((TOPIC_PREFIX + topic).encode()) > limits.topic_bytes:
        wrong["topic"] = [TOO_LONG]
    payload = entry.get("payload")
    if not isinstance(payload, dict):
        wrong["payload"] = [BLANK if payload is None else INVALID]
    content = _ENCODER.encode(payload)
    if len(content) > limits.payload_bytes:
        wrong["payload"] = [TOO_LARGE]
    is_private = _flag(entry.get("private"))
    if is_private is None:
        wrong["private"] = [INVALID]
    if wrong or is_private is None:
        return None, wrong
    return EmittedMessage(topic, is_private, event, False, content), wrong


def _name(entry: Mapping[str, Any], name: str, wrong: dict[str, list[str]]) -> str:
    value = entry.get(name)
    if value is None or value == "":
        wrong[name] = [BLANK]
    elif not isinstance(value, str):
        wrong[name] = [INVALID]
    else:
        return value
    return ""


def _flag(value: object) -> bool | None:
    """None for what is no boolean."""
    if isinstance(value, bool | None):
        return bool(value)
    return _FLAGS.get(str(value).lower())


def parse_single(
    path: bytes, is_private: bool, content_type: str, body: bytes, limits: Limits
) -> EmittedMessage | None:
    """Read TOPIC/events/EVENT, percent-encoded, and the body; None where the path is another.

    Raises BroadcastTypeError, InvalidBroadcastError.
    """
    match path.split(b"/"):
        case [encoded_topic, b"events", encoded_event] if encoded_topic and encoded_event:
            pass
        case _:
            return None
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/octet-stream"):
        raise BroadcastTypeError
    try:
        topic, event = (unquote_to_bytes(part).decode() for part in (encoded_topic, encoded_event))
    except UnicodeDecodeError as error:
        raise InvalidBroadcastError({"topic": [INVALID]}) from error
    is_binary = kind == "application/octet-stream"
    wrong = _check_names(topic, event, limits, is_binary=is_binary)
    if not is_binary:
        body = _check_json(body, wrong)
    if len(body) > limits.payload_bytes:
        wrong["payload"] = [TOO_LARGE]
    if wrong:
        raise InvalidBroadcastError(wrong)
    return EmittedMessage(topic, is_private, event, is_binary, body)


def _check_names(
    topic: str, event: str, limits: Limits, *, is_binary: bool
) -> dict[str, list[str]]:
    # Each has a byte for its length in the frames that carry bytes.
    topic_bytes = min(limits.topic_bytes, FIELD_BYTES_MAX) if is_binary else limits.topic_bytes
    wrong: dict[str, list[str]] = {}
    if len((TOPIC_PREFIX + topic).encode()) > topic_bytes:
        wrong["topic"] = [TOO_LONG]
    if is_binary and len(event.encode()) > FIELD_BYTES_MAX:
        wrong["event"] = [TOO_LONG]
    return wrong


def _check_json(body: bytes, wrong: dict[str, list[str]]) -> bytes:
    if not body.strip():
        return b"{}"
    try:
        body.decode()
        return bytes(_JSON.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        wrong["payload"] = [f"is not JSON: {error}"]
        return body
