"""Bodies with parts of them spoilt: whatever comes of them, it is an error we know."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.errors import AiRequestError, UpstreamError
from butterbase.ai.wire.assembly import Assembly
from butterbase.ai.wire.form import ChatAnswer, ChatRequest, Stamp
from butterbase.ai.wire.passing import open_request, render_passing
from butterbase.ai.wire.protocols import Kind, Target, WireName
from butterbase.ai.wire.watchers import read_answer, watcher
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES, target_wire
from tests.ai.wire.asking import (
    ANTHROPIC_TOOL,
    ANTHROPIC_TURNS,
    CONVERSATION,
    SCHEMA,
    WEATHER,
)
from tests.ai.wire.shapes import SHAPES
from tests.ai.wire.shaping import Shape, dumps

STAMP = Stamp("stamp", 1)
BODIES: dict[WireName, Any] = {
    WireName.CHAT: {
        "model": "m",
        "messages": CONVERSATION,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "reasoning": {"effort": "low", "max_tokens": 5},
        "stop": ["a"],
        "stream_options": {"include_usage": True},
        "metadata": {"a": "b"},
        "n": 1,
    },
    WireName.ANTHROPIC: {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": ANTHROPIC_TURNS,
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": "weather"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "metadata": {"user_id": "u"},
    },
    WireName.RESPONSES: {
        "model": "m",
        "instructions": "s",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}],
             "encrypted_content": "bb1.gemini_call.x"},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "fine"},
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
        "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "now"}]},
        "text": {"format": {"type": "json_schema", "schema": SCHEMA}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    },
}  # fmt: skip
SPOILT: list[Any] = [
    None,
    0,
    -1,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    {"type": "x"},
    True,
    "\ud800",
    2**70,
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, part in inner:
        yield from places(part, (*at, key))


def spoil(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """The value with another one in this place."""
    if not at:
        return by
    made = dict(value) if isinstance(value, dict) else list(value)
    made[at[0]] = spoil(value[at[0]], at[1:], by)
    return made


def send_everywhere(request: ChatRequest) -> None:
    for kind in Kind:
        for wire in {target_wire(WireName.CHAT, kind), target_wire(WireName.RESPONSES, kind)}:
            with suppress(AiRequestError):
                TARGET_WIRES[wire].encode_request(request, Target(kind, "claude-sonnet-4-5"))


@pytest.mark.parametrize("name", list(BODIES))
def test_a_request_with_any_part_spoilt_is_refused_or_translated(name: WireName) -> None:
    for at in places(BODIES[name]):
        for by in SPOILT:
            body = dumps(spoil(BODIES[name], at, by))
            try:
                request = CLIENT_WIRES[name].decode_request(body)
            except AiRequestError:
                pass
            else:
                send_everywhere(request)
            with suppress(AiRequestError):
                render_passing(open_request(name, body), "n")


@given(st.sampled_from(list(BODIES)), st.integers(0), st.binary(max_size=3))
def test_a_request_with_any_bytes_spoilt_is_refused_or_translated(
    name: WireName, place: int, by: bytes
) -> None:
    body = dumps(BODIES[name])
    at = place % len(body)
    try:
        request = CLIENT_WIRES[name].decode_request(body[:at] + by + body[at + len(by) :])
    except AiRequestError:
        return
    send_everywhere(request)


def tell_everyone(answer: ChatAnswer) -> None:
    for client in CLIENT_WIRES.values():
        json.loads(client.encode_answer(answer, ChatRequest()))


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_an_answer_with_any_part_spoilt_is_told_or_an_error(shape: Shape) -> None:
    whole = json.loads(shape.body)
    for at in places(whole):
        for by in SPOILT:
            body = dumps(spoil(whole, at, by))
            try:
                answer = TARGET_WIRES[shape.wire].decode_answer(body, STAMP)
            except UpstreamError:
                pass
            else:
                tell_everyone(answer)
            if shape.wire is not WireName.GEMINI:
                read_answer(shape.wire, body)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_a_stream_with_any_event_spoilt_is_told_or_an_error(shape: Shape) -> None:
    pieces = shape.stream.split(b"\n\n")
    spoilers = cycle(SPOILT)
    for number, piece in enumerate(pieces):
        head, found, data = piece.rpartition(b"data: ")
        if not found or data == b"[DONE]":
            continue
        event = json.loads(data)
        for at in places(event):
            by = next(spoilers)
            spoilt = head + found + dumps(spoil(event, at, by))
            run(shape.wire, b"\n\n".join([*pieces[:number], spoilt, *pieces[number + 1 :]]))


def run(wire: WireName, stream: bytes) -> None:
    decoder, assembly = TARGET_WIRES[wire].stream_decoder(STAMP), Assembly()
    encoders = [client.stream_encoder(ChatRequest()) for client in CLIENT_WIRES.values()]
    try:
        for events in (decoder.feed(stream), decoder.close()):
            for event in events:
                assembly.add(event)
                for encoder in encoders:
                    encoder.encode(event)
    except UpstreamError:
        return
    for encoder in encoders:
        encoder.close()
    tell_everyone(assembly.answer())
    if wire is not WireName.GEMINI:
        reader = watcher(wire)
        reader.feed(stream)
