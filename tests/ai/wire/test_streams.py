"""Streamed answers: the same however they are cut into pieces, and the same as whole ones."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from butterbase.ai.errors import UpstreamCutError, UpstreamInvalidError, UpstreamRefusedError
from butterbase.ai.wire.assembly import Assembly, events_of
from butterbase.ai.wire.events import Failed, Finished, Started, StreamEvent, Told
from butterbase.ai.wire.form import (
    ChatAnswer,
    ChatRequest,
    Image,
    Part,
    Reasoning,
    Refusal,
    Stamp,
    Text,
    ToolCall,
    Usage,
)
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.watchers import read_answer
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES
from tests.ai.wire.shapes import SHAPES
from tests.ai.wire.shapes_anthropic import message_start
from tests.ai.wire.shapes_chat import chunk
from tests.ai.wire.shapes_gemini import GEMINI_BLOCKED, generated
from tests.ai.wire.shaping import Shape, data, named

STAMP = Stamp("stamp", 1_700_000_000)
REQUEST = ChatRequest(is_streamed=True, wants_usage=True)

shapes = pytest.mark.parametrize("shape", SHAPES, ids=repr)


def read(wire: WireName, *chunks: bytes) -> list[StreamEvent]:
    decoder = TARGET_WIRES[wire].stream_decoder(STAMP)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def assembled(events: list[StreamEvent]) -> ChatAnswer:
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    return assembly.answer()


@shapes
def test_a_stream_tells_what_the_whole_answer_tells(shape: Shape) -> None:
    whole = TARGET_WIRES[shape.wire].decode_answer(shape.body, STAMP)
    assert assembled(read(shape.wire, shape.stream)) == whole


@shapes
def test_a_stream_cut_in_two_anywhere_gives_the_same_events(shape: Shape) -> None:
    events = read(shape.wire, shape.stream)
    for place in range(len(shape.stream)):
        assert read(shape.wire, shape.stream[:place], shape.stream[place:]) == events


@shapes
def test_a_stream_in_single_bytes_gives_the_same_events(shape: Shape) -> None:
    pieces = [shape.stream[place : place + 1] for place in range(len(shape.stream))]
    assert read(shape.wire, *pieces) == read(shape.wire, shape.stream)


@given(shape=st.sampled_from(SHAPES), places=st.lists(st.integers(0, 4000)), ends=st.data())
def test_line_ends_and_comments_change_nothing(
    shape: Shape, places: list[int], ends: st.DataObject
) -> None:
    end = ends.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    stream = shape.stream.replace(b"\n\n", b"\n\n: keep-alive\n\n").replace(b"\n", end)
    cuts = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(cuts)]
    assert read(shape.wire, *pieces) == read(shape.wire, shape.stream)


@shapes
def test_a_stream_without_its_last_line_ends_is_whole(shape: Shape) -> None:
    assert read(shape.wire, shape.stream.rstrip()) == read(shape.wire, shape.stream)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s is not GEMINI_BLOCKED], ids=repr)
def test_a_stream_that_ends_early_is_a_cut(shape: Shape) -> None:
    first = shape.stream.index(b"\n\n") + 2
    for part in (b"", shape.stream[:first], shape.stream[: first + 20]):
        with pytest.raises(UpstreamCutError):
            read(shape.wire, part)


@shapes
@pytest.mark.parametrize("name", list(CLIENT_WIRES))
def test_what_an_encoder_writes_its_decoder_reads(shape: Shape, name: WireName) -> None:
    """Through each wire and back, but for what that wire has no place for."""
    events = read(shape.wire, shape.stream)
    told = assembled(events)
    client = CLIENT_WIRES[name]
    encoder = client.stream_encoder(REQUEST)
    written = b"".join([encoder.encode(event) for event in events])
    streamed = assembled(read(name, written + encoder.close()))
    whole = TARGET_WIRES[name].decode_answer(client.encode_answer(told, REQUEST), STAMP)
    assert comparable(streamed, name) == comparable(whole, name) == comparable(told, name)


@shapes
@pytest.mark.parametrize("name", list(CLIENT_WIRES))
def test_a_client_is_told_nothing_before_the_model_says_something(
    shape: Shape, name: WireName
) -> None:
    encoder = CLIENT_WIRES[name].stream_encoder(REQUEST)
    for event in read(shape.wire, shape.stream):
        written = encoder.encode(event)
        if not isinstance(event, Started | Told):
            break
        assert written == b""


@shapes
def test_an_answer_played_again_is_the_same_answer(shape: Shape) -> None:
    told = assembled(read(shape.wire, shape.stream))
    assert assembled(list(events_of(told))) == told


@shapes
def test_an_answer_can_be_kept_as_json(shape: Shape) -> None:
    told = assembled(read(shape.wire, shape.stream))
    kept = msgspec.json.encode(told)
    assert msgspec.json.decode(kept, type=ChatAnswer) == told


def comparable(answer: ChatAnswer, name: WireName) -> object:
    """What this wire can say of it."""
    choice, usage = answer.choices[0], answer.usage or Usage()
    parts = [kept for part in choice.parts for kept in _comparable(part, name)]
    finish = choice.finish
    if name is WireName.ANTHROPIC and any(isinstance(p, Refusal) for p in choice.parts):
        finish = "content_filter"
    logprobs = bytes(choice.logprobs) if name is WireName.CHAT else b""
    stop = choice.stop_sequence if name is WireName.ANTHROPIC else None
    total = 0 if name is WireName.ANTHROPIC else usage.total_tokens
    tokens = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, total
    more = usage.reasoning_tokens, usage.cache_write_tokens, usage.cost
    return answer.model, parts, finish, stop, logprobs, tokens, more


def _comparable(part: Part, name: WireName) -> list[Part]:
    is_carrier = isinstance(part, Reasoning) and part.is_redacted and part.signature is not None
    if is_carrier and "gemini" in str(part):
        return []
    if name is WireName.CHAT:
        return [part]
    if isinstance(part, ToolCall):
        return [replace(part, signature=None)]
    if isinstance(part, Text):
        citations = part.citations if name is WireName.RESPONSES else ()
        return [replace(part, signature=None, citations=citations)]
    if isinstance(part, Refusal) and name is WireName.ANTHROPIC:
        return [Text(part.text)]
    return [part]


def test_a_chunk_that_is_no_json_is_not_left_out_in_silence() -> None:
    for wire in (WireName.CHAT, WireName.ANTHROPIC, WireName.GEMINI, WireName.RESPONSES):
        with pytest.raises(UpstreamInvalidError):
            read(wire, b"data: oops\n\n")


@pytest.mark.parametrize(
    ("wire", "stream", "kind", "status"),
    [
        (
            WireName.CHAT,
            chunk({"content": "a"})
            + chunk({}, error={"code": 429, "message": "Slow down", "metadata": {}}),
            "rate_limit",
            429,
        ),
        (
            WireName.ANTHROPIC,
            message_start()
            + named("error", error={"type": "overloaded_error", "message": "Overloaded"}),
            "overloaded",
            529,
        ),
        (
            WireName.GEMINI,
            data({"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}),
            "overloaded",
            503,
        ),
        (
            WireName.RESPONSES,
            named(
                "response.failed",
                response={"id": "r", "error": {"code": "server_error", "message": "Broken"}},
            ),
            "server",
            500,
        ),
        (
            WireName.RESPONSES,
            named("error", code="rate_limit_exceeded", message="Slow down", param=None),
            "rate_limit",
            429,
        ),
    ],
)
def test_an_error_in_a_stream_ends_it(
    wire: WireName, stream: bytes, kind: str, status: int
) -> None:
    *_, last = read(wire, stream + stream)
    assert isinstance(last, Failed)
    assert (last.error.kind, last.error.status) == (kind, status)
    for client in CLIENT_WIRES.values():
        encoder = client.stream_encoder(REQUEST)
        assert last.error.message.encode() in encoder.encode(last)


def test_a_usage_that_comes_with_every_chunk_counts_once() -> None:
    usages = [{"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n} for n in (1, 2)]
    stream = chunk({"content": "a"}, usage=usages[0]) + chunk(
        {"content": "b"}, "stop", usage=usages[1]
    )
    answer = assembled(read(WireName.CHAT, stream))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_a_usage_that_is_no_number_is_none() -> None:
    stream = chunk({"content": "a"}, "stop", usage={"prompt_tokens": "many"})
    assert not any(isinstance(event, Told) for event in read(WireName.CHAT, stream))


def test_every_choice_of_a_stream_is_told() -> None:
    pieces = [
        {"index": index, "delta": {"content": text}, "finish_reason": finish}
        for index, text, finish in [
            (0, "a", None),
            (1, "x", None),
            (1, "", "length"),
            (0, "b", "stop"),
        ]
    ]
    stream = b"".join(data({"id": "1", "choices": [piece]}) for piece in pieces)
    events = read(WireName.CHAT, stream)
    answer = assembled(events)
    assert [choice.finish for choice in answer.choices] == ["stop", "length"]
    assert [choice.parts for choice in answer.choices] == [(Text("ab"),), (Text("x"),)]
    encoder = CLIENT_WIRES[WireName.CHAT].stream_encoder(REQUEST)
    written = b"".join([encoder.encode(event) for event in events]) + encoder.close()
    assert assembled(read(WireName.CHAT, written)).choices == answer.choices


def test_a_model_that_fails_to_call_is_no_empty_answer() -> None:
    with pytest.raises(UpstreamInvalidError, match="MALFORMED_FUNCTION_CALL"):
        read(WireName.GEMINI, data(generated([], "MALFORMED_FUNCTION_CALL")))


def test_a_finish_is_told_once() -> None:
    stream = chunk({"content": "a"}, "stop") + chunk({}, "stop")
    events = read(WireName.CHAT, stream)
    assert sum(isinstance(event, Finished) for event in events) == 1


@given(st.lists(st.binary(), max_size=5), st.sampled_from(list(TARGET_WIRES)))
def test_any_bytes_are_a_cut_or_invalid(chunks: list[bytes], wire: WireName) -> None:
    with pytest.raises((UpstreamCutError, UpstreamInvalidError)):
        read(wire, *chunks)


def calls_of(*deltas: object) -> list[tuple[str, str, str]]:
    stream = b"".join(chunk({"tool_calls": [delta]}) for delta in deltas) + chunk({}, "tool_calls")
    parts = assembled(read(WireName.CHAT, stream)).choices[0].parts
    return [(part.id, part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]


def test_calls_are_told_apart_however_a_server_numbers_them() -> None:
    one, two = ({"name": "f", "arguments": text} for text in ('{"a":1}', '{"a":2}'))
    first, second = ("call_stamp_0_0", "f", '{"a":1}'), ("call_stamp_0_1", "f", '{"a":2}')
    # Whole, without ids, and all with the same index.
    assert calls_of({"index": 0, "function": one}, {"index": 0, "function": two}) == [first, second]
    # In pieces that repeat the name, or the name and the id.
    begun, rest = {"name": "f", "arguments": '{"a"'}, {"name": "f", "arguments": ":1}"}
    assert calls_of({"index": 0, "function": begun}, {"index": 0, "function": rest}) == [first]
    with_id = {"index": 0, "id": "x"}
    pieces = calls_of(with_id | {"function": begun}, with_id | {"function": rest})
    assert pieces == [("x", "f", '{"a":1}')]
    # With another id for each piece, and the name in the first one only.
    named_once = [{"index": 0, "id": "x", "function": begun},
                  {"index": 0, "id": "y", "function": {"arguments": ":1}"}}]  # fmt: skip
    assert calls_of(*named_once) == [("x", "f", '{"a":1}')]
    # Side by side.
    woven = [
        {"index": 0, "id": "x", "function": begun},
        {"index": 1, "id": "y", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert calls_of(*woven) == [("x", "f", '{"a":1}'), ("y", "g", "{}")]


def test_azure_begins_with_a_chunk_of_nothing() -> None:
    empty = data({"id": "", "model": "", "choices": [], "prompt_filter_results": []})
    answer = assembled(read(WireName.CHAT, empty + chunk({"content": "a"}, "stop")))
    assert (answer.id, answer.model) == ("chatcmpl-A1", "gpt-4o-mini-2024-07-18")


@pytest.mark.parametrize("wire", list(TARGET_WIRES))
def test_what_a_provider_leaves_out_is_known(wire: WireName) -> None:
    streams = {
        WireName.CHAT: data({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}),
        WireName.ANTHROPIC: named(
            "content_block_start", index=0, content_block={"type": "text", "text": "a"}
        )
        + named("message_delta", delta={"stop_reason": "end_turn"}),
        WireName.GEMINI: data(
            {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
        ),
        WireName.RESPONSES: named("response.created", response={})
        + named("response.output_text.delta", delta="a")
        + named("response.completed", response={"status": "completed"}),
    }
    decoder = TARGET_WIRES[wire].stream_decoder(Stamp("call-7", 5, "asked-for"))
    answer = assembled(decoder.feed(streams[wire]) + decoder.close())
    assert (answer.id, answer.model, answer.created_s) == ("call-7", "asked-for", 5)
    assert answer.choices[0].parts == (Text("a"),)
    assert answer.choices[0].finish == "stop"


def test_a_picture_of_the_models_own_reaches_openais_clients() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    events = read(WireName.GEMINI, data(generated([part], "STOP")))
    image = Image(data="AAAA", media_type="image/png")
    assert assembled(events).choices[0].parts == (image,)
    encoder = CLIENT_WIRES[WireName.CHAT].stream_encoder(REQUEST)
    written = b"".join([encoder.encode(event) for event in events]) + encoder.close()
    assert assembled(read(WireName.CHAT, written)).choices[0].parts == (image,)


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (WireName.CHAT, b'{"error":{"message":"Busy","code":503}}'),
        (WireName.CHAT, b'{"choices":[{"error":{"message":"Busy","code":503}}]}'),
        (WireName.ANTHROPIC, b'{"type":"error","error":{"type":"api_error","message":"Busy"}}'),
        (WireName.GEMINI, b'{"error":{"code":503,"message":"Busy","status":"UNAVAILABLE"}}'),
        (WireName.RESPONSES, b'{"id":"r","error":{"code":"server_error","message":"Busy"}}'),
    ],
)
def test_an_error_in_place_of_an_answer(wire: WireName, body: bytes) -> None:
    with pytest.raises(UpstreamRefusedError) as refused:
        TARGET_WIRES[wire].decode_answer(body, STAMP)
    assert refused.value.error.message == "Busy"
    facts = None if wire is WireName.GEMINI else read_answer(wire, body)
    if facts is not None and b"choices" not in body:
        assert facts.error is not None
        assert facts.error.message == "Busy"
