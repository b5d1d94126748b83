"""Streams that pass as they are: what is read of them, and what is kept back."""

import pytest

from butterbase.ai.errors import UpstreamCutError
from butterbase.ai.wire.form import Stamp
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.watchers import read_answer, watcher
from butterbase.ai.wire.wires import TARGET_WIRES
from tests.ai.wire.shapes import SHAPES
from tests.ai.wire.shapes_anthropic import (
    ANTHROPIC_TEXT,
    ANTHROPIC_TOOLS,
    message_end,
    message_start,
)
from tests.ai.wire.shapes_chat import CHAT_TEXT, CHAT_THOUGHTS, CHAT_USAGE, OPENROUTER, chunk
from tests.ai.wire.shapes_responses import RESPONSES
from tests.ai.wire.shaping import DONE, Shape, data, named

PASSING = [shape for shape in SHAPES if shape.wire is not WireName.GEMINI]
STAMP = Stamp("stamp", 1)

shapes = pytest.mark.parametrize("shape", PASSING, ids=repr)


@shapes
def test_a_stream_passes_byte_for_byte_with_its_end_kept_back(shape: Shape) -> None:
    reader = watcher(shape.wire)
    passed = reader.feed(shape.stream) + reader.close()
    assert passed + reader.ending == shape.stream.removesuffix(DONE) + (
        DONE if shape.wire is WireName.CHAT else b""
    )
    assert reader.ending
    assert reader.has_begun
    assert reader.finish
    assert reader.model
    assert reader.error is None


@shapes
def test_however_it_is_cut_the_same_is_read(shape: Shape) -> None:
    once = watcher(shape.wire)
    passed = once.feed(shape.stream) + once.close()
    for size in (1, 7, 64):
        reader = watcher(shape.wire)
        pieces = [shape.stream[at : at + size] for at in range(0, len(shape.stream), size)]
        again = b"".join([reader.feed(piece) for piece in pieces]) + reader.close()
        assert (again, reader.usage, reader.finish) == (passed, once.usage, once.finish)


@shapes
def test_the_usage_is_that_of_the_whole_answer(shape: Shape) -> None:
    reader = watcher(shape.wire)
    reader.feed(shape.stream)
    facts = read_answer(shape.wire, shape.body)
    assert facts is not None
    answer = TARGET_WIRES[shape.wire].decode_answer(shape.body, STAMP)
    assert reader.usage == facts.usage == answer.usage
    assert (reader.finish, reader.model) == (facts.finish, facts.model)


def test_a_usage_only_we_asked_for_is_kept_back() -> None:
    reader = watcher(WireName.CHAT, wants_usage=False)
    assert reader.feed(CHAT_TEXT.stream) == CHAT_TEXT.stream.removesuffix(
        chunk(None, usage=CHAT_USAGE) + DONE
    )
    assert reader.usage is not None


def test_a_usage_beside_choices_is_read_and_passes() -> None:
    reader = watcher(WireName.CHAT, wants_usage=False)
    assert reader.feed(CHAT_THOUGHTS.stream) + DONE == CHAT_THOUGHTS.stream
    assert reader.usage is not None


def test_a_cost_is_read() -> None:
    reader = watcher(WireName.CHAT, wants_usage=False)
    reader.feed(OPENROUTER.stream)
    assert reader.usage is not None
    assert str(reader.usage.cost) == "0.00123450001"


def test_the_prompts_tokens_of_a_cut_stream_are_known() -> None:
    reader = watcher(WireName.ANTHROPIC)
    reader.feed(message_start())
    assert reader.usage is not None
    assert reader.usage.prompt_tokens == 1390
    with pytest.raises(UpstreamCutError):
        reader.close()


@pytest.mark.parametrize(
    ("wire", "begun", "error"),
    [
        (WireName.CHAT, chunk({"content": "a"}), data({"error": {"message": "Busy", "code": 503}})),
        (
            WireName.ANTHROPIC,
            message_start(),
            named("error", error={"type": "overloaded_error", "message": "Busy"}),
        ),
        (
            WireName.RESPONSES,
            named("response.created", response={"id": "r", "status": "in_progress"}),
            named(
                "response.failed",
                response={
                    "id": "r",
                    "status": "failed",
                    "error": {"code": "server_error", "message": "Busy"},
                    "usage": {"input_tokens": 9},
                },
            ),
        ),
    ],
)
def test_an_error_is_kept_back_and_ends_the_stream(
    wire: WireName, begun: bytes, error: bytes
) -> None:
    reader = watcher(wire)
    assert reader.feed(begun + error + begun) == begun
    assert reader.error is not None
    assert reader.error.message == "Busy"
    assert reader.feed(begun) == b""


@pytest.mark.parametrize("shape", [CHAT_TEXT, ANTHROPIC_TEXT, RESPONSES], ids=repr)
def test_a_stream_that_ends_early_is_a_cut(shape: Shape) -> None:
    reader = watcher(shape.wire)
    first = shape.stream.index(b"\n\n") + 2
    reader.feed(shape.stream[: first + 30])
    with pytest.raises(UpstreamCutError):
        reader.close()


def test_an_anthropic_stream_without_its_last_event_gets_it() -> None:
    reader = watcher(WireName.ANTHROPIC)
    whole = message_start() + message_end("end_turn")
    reader.feed(whole.removesuffix(named("message_stop")))
    assert reader.close() == b""
    assert reader.ending == named("message_stop")


@pytest.mark.parametrize("shape", [ANTHROPIC_TOOLS, RESPONSES], ids=repr)
def test_a_last_event_without_its_blank_line_is_the_end_all_the_same(shape: Shape) -> None:
    reader = watcher(shape.wire)
    passed = reader.feed(shape.stream.rstrip()) + reader.close()
    assert passed + reader.ending == shape.stream


@pytest.mark.parametrize("wire", [WireName.CHAT, WireName.RESPONSES, WireName.ANTHROPIC])
def test_what_cannot_be_read_passes(wire: WireName) -> None:
    odd = b"data: not json\n\n: comment\n\nevent: ping\ndata: {}\n\n" + b'data: {"usage": 5}\n\n'
    assert watcher(wire).feed(odd) == odd


@pytest.mark.parametrize("wire", [WireName.CHAT, WireName.RESPONSES, WireName.ANTHROPIC])
def test_an_answer_that_is_no_object(wire: WireName) -> None:
    for body in (b"", b"[]", b"<html>", b"\xff"):
        assert read_answer(wire, body) is None
