"""Frames, handshakes and join entries as bytes and text."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from butterbase.realtime.errors import (
    HandshakeError,
    InvalidFrameError,
    MissingKeyError,
    UnknownAppError,
    UnsupportedVersionError,
)
from butterbase.realtime.session.protocol import (
    Frame,
    Message,
    Version,
    decode,
    encode,
    websocket_frame,
)
from butterbase.realtime.sockets.handshake import Handshake, read_handshake

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (
            Version.V1,
            b'{"topic":"t","event":"e","payload":{"a":1},"ref":"2","join_ref":"1","more":0}',
        ),
        (Version.V2, b'["1","2","t","e",{"a":1}]'),
    ],
)
def test_both_versions_say_the_same(version: Version, text: bytes) -> None:
    assert decode(text, version) == Frame("t", "e", {"a": 1}, "2", "1")


@given(st.binary() | json_values.map(msgspec.json.encode))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for version in Version:
        with suppress(InvalidFrameError):
            decode(data, version)


@given(st.text(), st.text(), st.dictionaries(st.text(), json_values), st.none() | st.text())
def test_what_is_encoded_decodes(
    topic: str, event: str, payload: dict[str, Any], ref: str | None
) -> None:
    message = Message(topic, event, payload, ref)
    for version in Version:
        assert decode(encode(message, version), version) == Frame(topic, event, payload, ref)


def test_version_1_has_exactly_the_four_fields() -> None:
    text = encode(Message("t", "e", {}, join_ref="1"), Version.V1)
    assert text == b'{"topic":"t","event":"e","payload":{},"ref":null}'


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidFrameError):
        decode(b'["1","1","t","e",{"a":' + b"[" * 100_000, Version.V2)


@pytest.mark.parametrize("version", Version)
def test_text_that_is_not_utf8_is_refused(version: Version) -> None:
    with pytest.raises(InvalidFrameError):
        decode(b'{"topic":"\xff"}' if version is Version.V1 else b'["1","1","\xff"]', version)


def test_a_text_frame_is_whole_and_unmasked() -> None:
    assert websocket_frame(b"hi") == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("target", "headers", "handshake"),
    [
        ("/realtime/v1/websocket?apikey=k", {}, Handshake("main", "k", Version.V1)),
        ("/realtime/v1/websocket/?apikey=k", {}, Handshake("main", "k", Version.V1)),
        (
            "/v1/shop/realtime/v1/websocket?vsn=2.0.0&apikey=k",
            {"X-Api-Key": "header"},
            Handshake("shop", "header", Version.V2),
        ),
        ("/realtime/v1/websocket", {"ApiKey": "k"}, Handshake("main", "k", Version.V1)),
    ],
)
def test_handshakes(target: str, headers: dict[str, str], handshake: Handshake) -> None:
    assert read_handshake(target, Headers(headers)) == handshake


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/realtime/v1/websocket", MissingKeyError),
        ("/realtime/v1/websocket?apikey=", MissingKeyError),
        ("/realtime/v1/websocket?" + "a=1&" * 200, MissingKeyError),
        ("/realtime/v1/websocket?apikey=k&vsn=3.0.0", UnsupportedVersionError),
        ("/realtime/v1/api/broadcast?apikey=k", UnknownAppError),
        ("/x/realtime/v1/websocket?apikey=k", UnknownAppError),
        ("//[/realtime", UnknownAppError),
    ],
)
def test_refused_handshakes(target: str, error: type[HandshakeError]) -> None:
    with pytest.raises(error):
        read_handshake(target, Headers())
