"""Frames, handshakes and join entries as bytes and text."""

import re
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
    InvalidSubscriptionError,
    MissingKeyError,
    UnknownAppError,
    UnsupportedVersionError,
)
from butterbase.realtime.handshake import Handshake, read_handshake
from butterbase.realtime.protocol import Frame, Message, Version, decode, encode, websocket_frame
from butterbase.realtime.subscriptions import ChangeRequest, number, parse_entry
from butterbase.sql.filters import Equals

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


def test_equal_entries_have_equal_ids_and_others_different_ones() -> None:
    first, again, other = number(
        [{"event": "*", "table": "a"}, {"table": "a", "event": "*"}, {"event": "*", "table": "b"}]
    )
    assert first == again != other
    assert 0 < first < 2**27


SCHEMAS = ("public",)


@pytest.mark.parametrize(
    ("entry", "request_"),
    [
        ({"table": "t"}, ChangeRequest(1, "*", "public", "t", None)),
        ({"schema": "public"}, ChangeRequest(1, "*", "public", "*", None)),
        ({"schema": "*", "event": "insert"}, ChangeRequest(1, "INSERT", "*", "*", None)),
        ({"table": "t", "filter": " "}, ChangeRequest(1, "*", "public", "t", None)),
        (
            {"table": "t", "filter": "a=eq.x=eq.y"},
            ChangeRequest(1, "*", "public", "t", Equals("a", "x=eq.y")),
        ),
    ],
)
def test_entries(entry: dict[str, Any], request_: ChangeRequest) -> None:
    assert parse_entry(1, entry, SCHEMAS) == request_


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "No subscription params provided"),
        ({"table": 5}, "`table` must be text"),
        ({"table": "t\0"}, "`table` must be text"),
        ({"schema": "auth", "table": "users"}, "Schema auth is not exposed"),
        ({"table": "t", "event": "SELECT"}, "Unknown event SELECT"),
        ({"table": "t", "filter": "foo,hey"}, "foo,hey"),
        ({"table": "t", "filter": "a=gt.1"}, "`filter` params: a=gt.1: unknown operator gt"),
        ({"schema": "public", "filter": "a=eq.1"}, "needs a schema and a table"),
    ],
)
def test_entries_that_cannot_be(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSubscriptionError, match=re.escape(message)):
        parse_entry(1, entry, SCHEMAS)
