"""Requests that go on in their own wire: what is read, and what is changed."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.passing import open_request, render_passing
from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import Json, dumps

NAMES = [WireName.CHAT, WireName.RESPONSES, WireName.ANTHROPIC]
MESSAGES = [{"role": "user", "content": "Hi"}]


def passed(wire: WireName, fields: Json, **changes: object) -> Json:
    rendered: Json = json.loads(render_passing(open_request(wire, dumps(fields)), "n", changes))
    return rendered


@pytest.mark.parametrize("wire", NAMES)
def test_all_but_the_model_passes(wire: WireName) -> None:
    fields = {"model": "m", "messages": MESSAGES, "input": "Hi", "odd": {"b": 1, "a": 1e400}}
    body = dumps(fields).replace(b"Infinity", b"1e400")
    rendered = render_passing(open_request(wire, body), "n")
    assert rendered == body.replace(b'"model":"m"', b'"model":"n"')


def test_what_is_read_of_each_wire() -> None:
    body = dumps(
        {"model": "m", "messages": MESSAGES, "stream": True, "n": 3, "max_tokens": 5}
        | {"max_completion_tokens": 9, "max_output_tokens": 7}
    )
    chat, responses, message = (open_request(wire, body) for wire in NAMES)
    assert (chat.token_count, chat.choice_count, chat.wants_usage) == (9, 3, False)
    assert (responses.token_count, responses.choice_count) == (7, 1)
    assert (message.token_count, message.wants_usage) == (5, True)
    assert all(opened.is_streamed and opened.model == "m" for opened in (chat, responses, message))


def test_a_stream_is_asked_for_with_its_usage() -> None:
    asked = {"messages": MESSAGES, "stream": True, "stream_options": {"include_obfuscation": False}}
    assert passed(WireName.CHAT, asked)["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert "stream_options" not in passed(WireName.CHAT, {"messages": MESSAGES})
    for wire in (WireName.RESPONSES, WireName.ANTHROPIC):
        fields = {"messages": MESSAGES, "input": "Hi", "stream": True}
        assert "stream_options" not in passed(wire, fields)


def test_fields_are_set_in_place_of_the_clients() -> None:
    fields = {"messages": MESSAGES, "max_tokens": 500}
    assert passed(WireName.CHAT, fields, max_tokens=7)["max_tokens"] == 7


def test_a_field_written_twice_is_sent_as_it_was_read() -> None:
    body = b'{"messages": [1], "max_tokens": 9999, "model": "m", "max_tokens": 5}'
    opened = open_request(WireName.CHAT, body)
    assert opened.token_count == 5
    assert msgspec.json.decode(render_passing(opened, "m"))["max_tokens"] == 5


@pytest.mark.parametrize("wire", NAMES)
@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_body_is_opened_or_refused(wire: WireName, body: bytes) -> None:
    with suppress(AiRequestError):
        open_request(wire, body)
