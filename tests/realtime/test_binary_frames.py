"""Broadcasts in the binary form: what clients send, and what they are sent."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.realtime.errors import InvalidFrameError
from butterbase.realtime.rooms.broadcast import Broadcast, broadcast_of, frame_of
from butterbase.realtime.session.protocol import Push, Version, decode_binary
from tests.realtime.channels import TOPIC, push, read_broadcast, read_frame

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def test_a_push_is_read() -> None:
    data = push("realtime:räume", "größe", b'{"a": [1, "\xc3\xa9"]} ', meta=b'{"k":1}')
    assert decode_binary(data, Version.V2) == Push(
        "realtime:räume", "größe", b'{"a": [1, "\xc3\xa9"]}', False, "2", "1"
    )
    assert decode_binary(push(payload=b"\xff\x00", encoding=0), Version.V2).payload == b"\xff\x00"


def test_empty_references_are_none() -> None:
    read = decode_binary(push(ref="", join_ref=""), Version.V2)
    assert (read.ref, read.join_ref) == (None, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x03",
        push(kind=0),
        push(kind=4),
        push(encoding=2),
        b"\x03\xff\xff\xff\xff\xff\x01short",
        push()[:-3],
        push(payload=b""),
        push(payload=b"{"),
        push(payload=b"{} {}"),
        push(payload=b'"\xff"'),
        push(payload=b"NaN"),
        push(payload=b"[" * 100_000),
        push(meta=b"{"),
        push().replace(b"room", b"ro\xffm"),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFrameError):
        decode_binary(data, Version.V2)


def test_clients_of_the_first_version_send_no_bytes() -> None:
    with pytest.raises(InvalidFrameError):
        decode_binary(push(), Version.V1)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for candidate in (data, b"\x03" + data):
        with contextlib.suppress(InvalidFrameError):
            decode_binary(candidate, Version.V2)


@given(TEXT, TEXT, st.binary(max_size=300), st.booleans())
def test_what_is_pushed_arrives(topic: str, event: str, payload: bytes, is_binary: bool) -> None:
    content = payload if is_binary else json.dumps(payload.hex()).encode()
    data = push(topic, event, content, encoding=int(not is_binary))
    read = decode_binary(data, Version.V2)
    frame = frame_of(
        Broadcast(read.event, read.payload, is_binary=read.is_binary), read.topic, Version.V2
    )
    assert frame is not None
    opcode, sent = read_frame(frame)
    assert opcode == 2
    assert read_broadcast(sent) == (topic, event, None, content, is_binary)


def test_version_1_is_sent_json_and_no_bytes() -> None:
    frame = frame_of(Broadcast("e", b'{"a": 1}', id="i"), TOPIC, Version.V1)
    assert frame is not None
    opcode, text = read_frame(frame)
    assert opcode == 1
    payload = {"type": "broadcast", "event": "e", "payload": {"a": 1}, "meta": {"id": "i"}}
    assert json.loads(text) == {
        "topic": TOPIC,
        "event": "broadcast",
        "payload": payload,
        "ref": None,
    }
    assert frame_of(Broadcast("e", b"\x00", is_binary=True), TOPIC, Version.V1) is None


def test_what_is_kept_says_which_it_is() -> None:
    frame = frame_of(Broadcast("e", b"1", id="i", is_replayed=True), TOPIC, Version.V2)
    assert frame is not None
    assert read_broadcast(read_frame(frame)[1])[2] == {"id": "i", "replayed": True}


@pytest.mark.parametrize(("topic", "event"), [("realtime:" + "t" * 250, "e"), (TOPIC, "é" * 128)])
def test_what_is_too_long_for_bytes_is_sent_as_text(topic: str, event: str) -> None:
    frame = frame_of(Broadcast(event, b"[1]"), topic, Version.V2)
    assert frame is not None
    opcode, text = read_frame(frame)
    assert opcode == 1
    body = {"type": "broadcast", "event": event, "payload": [1]}
    assert json.loads(text) == [None, None, topic, "broadcast", body]
    assert frame_of(Broadcast(event, b"\x00", is_binary=True), topic, Version.V2) is None


@pytest.mark.parametrize("version", Version)
def test_what_was_sent_in_json_goes_on_as_it_was(version: Version) -> None:
    sent = {"type": "broadcast", "event": "e", "payload": 1, "more": [2], "meta": {"id": "forged"}}
    frame = frame_of(broadcast_of(sent), TOPIC, version)
    assert frame is not None
    opcode, text = read_frame(frame)
    assert opcode == 1
    message = json.loads(text)
    payload = message["payload"] if version is Version.V1 else message[4]
    assert payload == {"type": "broadcast", "event": "e", "payload": 1, "more": [2]}
