"""What we write, as the providers' own clients read it; and what they read of their providers."""

import json
from typing import Any

import anthropic
import openai
import pytest

from butterbase.ai.wire.assembly import Assembly
from butterbase.ai.wire.events import Failed, StreamEvent, WireError
from butterbase.ai.wire.form import (
    ChatAnswer,
    ChatRequest,
    Reasoning,
    Refusal,
    Stamp,
    Text,
    ToolCall,
)
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES
from tests.ai.wire.clients import (
    EVENTS,
    JSON,
    always,
    anthropic_client,
    gemini_client,
    openai_client,
)
from tests.ai.wire.shapes import SHAPES
from tests.ai.wire.shapes_gemini import GEMINI_BLOCKED
from tests.ai.wire.shaping import Shape

STAMP = Stamp("stamp", 1_700_000_000)
REQUEST = ChatRequest(is_streamed=True, wants_usage=True)
USER: Any = [{"role": "user", "content": "Hi"}]

shapes = pytest.mark.parametrize("shape", SHAPES, ids=repr)


def told(shape: Shape) -> ChatAnswer:
    return TARGET_WIRES[shape.wire].decode_answer(shape.body, STAMP)


def events(shape: Shape) -> list[StreamEvent]:
    decoder = TARGET_WIRES[shape.wire].stream_decoder(STAMP)
    return decoder.feed(shape.stream) + decoder.close()


def whole(shape: Shape, name: WireName) -> bytes:
    return CLIENT_WIRES[name].encode_answer(told(shape), REQUEST)


def streamed(shape: Shape, name: WireName) -> bytes:
    encoder = CLIENT_WIRES[name].stream_encoder(REQUEST)
    return b"".join([encoder.encode(e) for e in events(shape)]) + encoder.close()


def texts(answer: ChatAnswer) -> str:
    return "".join(p.text for p in answer.choices[0].parts if isinstance(p, Text))


def refusals(answer: ChatAnswer) -> str:
    return "".join(p.text for p in answer.choices[0].parts if isinstance(p, Refusal))


def calls(answer: ChatAnswer) -> list[tuple[str, str, Any]]:
    parts = [part for part in answer.choices[0].parts if isinstance(part, ToolCall)]
    return [(part.id, part.name, json.loads(part.arguments)) for part in parts]


def thoughts(answer: ChatAnswer) -> str:
    return "".join(p.text for p in answer.choices[0].parts if isinstance(p, Reasoning))


def check_completion(completion: Any, answer: ChatAnswer) -> None:
    message = completion.choices[0].message
    assert (message.content or "") == texts(answer)
    assert (message.refusal or "") == refusals(answer)
    assert getattr(message, "reasoning_content", "") == thoughts(answer)
    assert [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in message.tool_calls or ()
    ] == calls(answer)
    assert completion.choices[0].finish_reason == answer.choices[0].finish
    if answer.usage is not None:
        usage = completion.usage
        assert usage.prompt_tokens == answer.usage.prompt_tokens
        assert usage.completion_tokens == answer.usage.completion_tokens
        assert usage.prompt_tokens_details.cached_tokens == answer.usage.cached_tokens
        assert usage.completion_tokens_details.reasoning_tokens == answer.usage.reasoning_tokens


@shapes
def test_openais_client_reads_a_completion(shape: Shape) -> None:
    with openai_client(always(whole(shape, WireName.CHAT), JSON)) as client:
        completion = client.chat.completions.create(model="m", messages=USER)
    check_completion(completion, told(shape))


@shapes
def test_openais_client_reads_a_streamed_completion(shape: Shape) -> None:
    with (
        openai_client(always(streamed(shape, WireName.CHAT), EVENTS)) as client,
        client.chat.completions.stream(model="m", messages=USER) as stream,
    ):
        if told(shape).choices[0].finish in {"length", "content_filter"}:
            # This helper refuses to give an answer that was cut off; the chunks are there.
            chunks = [e.chunk for e in _until_refused(stream) if e.type == "chunk"]
            content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert content == texts(told(shape))
            return
        check_completion(stream.get_final_completion(), told(shape))


def _until_refused(stream: Any) -> list[Any]:
    seen = []
    try:
        for event in stream:
            seen.append(event)
    except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
        pass
    return seen


def check_response(response: Any, answer: ChatAnswer) -> None:
    assert response.output_text == texts(answer)
    contents = [c for item in response.output if item.type == "message" for c in item.content]
    assert "".join(c.refusal for c in contents if c.type == "refusal") == refusals(answer)
    assert [
        (item.call_id, item.name, json.loads(item.arguments))
        for item in response.output
        if item.type == "function_call"
    ] == calls(answer)
    summaries = [s.text for i in response.output if i.type == "reasoning" for s in i.summary]
    assert "".join(summaries) == thoughts(answer)
    is_whole = answer.choices[0].finish not in {"length", "content_filter"}
    assert response.status == ("completed" if is_whole else "incomplete")
    if answer.usage is not None:
        assert response.usage.total_tokens == answer.usage.total_tokens
        assert response.usage.input_tokens_details.cached_tokens == answer.usage.cached_tokens


@shapes
def test_openais_client_reads_a_response(shape: Shape) -> None:
    with openai_client(always(whole(shape, WireName.RESPONSES), JSON)) as client:
        response = client.responses.create(model="m", input="Hi")
    check_response(response, told(shape))


@shapes
def test_openais_client_reads_a_streamed_response(shape: Shape) -> None:
    stream_bytes = streamed(shape, WireName.RESPONSES)
    with openai_client(always(stream_bytes, EVENTS)) as client:
        seen = list(client.responses.create(model="m", input="Hi", stream=True))
    last: Any = seen[-1]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    check_response(last.response, told(shape))
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert "".join(deltas) == texts(told(shape))
    # The client's own reader puts the items together from the pieces, and checks their order.
    with (
        openai_client(always(stream_bytes, EVENTS)) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        kinds = [event.type for event in stream]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done")


def check_message(message: Any, answer: ChatAnswer) -> None:
    said = "".join(block.text for block in message.content if block.type == "text")
    assert said == texts(answer) + refusals(answer)
    assert [
        (block.id, block.name, block.input) for block in message.content if block.type == "tool_use"
    ] == calls(answer)
    thinking = [block.thinking for block in message.content if block.type == "thinking"]
    assert "".join(thinking) == thoughts(answer)
    choice = answer.choices[0]
    expected = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    reason = expected.get(choice.finish or "", "refusal")
    if choice.stop_sequence is not None:
        reason = "stop_sequence"
    assert message.stop_reason == ("refusal" if refusals(answer) else reason)
    assert message.stop_sequence == choice.stop_sequence
    usage, counted = message.usage, answer.usage
    if counted is not None:
        cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        assert usage.input_tokens + cached + written == counted.prompt_tokens
        assert usage.output_tokens == counted.completion_tokens
        assert cached == counted.cached_tokens


@shapes
def test_anthropics_client_reads_a_message(shape: Shape) -> None:
    with anthropic_client(always(whole(shape, WireName.ANTHROPIC), JSON)) as client:
        message = client.messages.create(model="m", max_tokens=9, messages=USER)
    check_message(message, told(shape))


@shapes
def test_anthropics_client_reads_a_streamed_message(shape: Shape) -> None:
    with (
        anthropic_client(always(streamed(shape, WireName.ANTHROPIC), EVENTS)) as client,
        client.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
    ):
        check_message(stream.get_final_message(), told(shape))


@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if s.wire is WireName.GEMINI and s is not GEMINI_BLOCKED], ids=repr
)
def test_googles_client_reads_of_gemini_what_we_read(shape: Shape) -> None:
    with gemini_client(always(shape.body, JSON)) as client:
        answer = client.models.generate_content(model="gemini-3-pro", contents="Hi")
    ours = told(shape)
    assert (answer.text or "") == texts(ours)
    assert [call.name for call in answer.function_calls or ()] == [c[1] for c in calls(ours)]
    usage = answer.usage_metadata
    assert usage is not None
    assert ours.usage is not None
    assert usage.total_token_count == ours.usage.total_tokens


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.wire is WireName.ANTHROPIC], ids=repr)
def test_anthropics_client_reads_of_anthropic_what_we_read(shape: Shape) -> None:
    with anthropic_client(always(shape.body, JSON)) as client:
        check_message(client.messages.create(model="m", max_tokens=9, messages=USER), told(shape))
    assembly = Assembly()
    for event in events(shape):
        assembly.add(event)
    with (
        anthropic_client(always(shape.stream, EVENTS)) as client,
        client.messages.stream(model="m", max_tokens=9, messages=USER) as stream,
    ):
        check_message(stream.get_final_message(), assembly.answer())


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.wire is WireName.RESPONSES], ids=repr)
def test_openais_client_reads_of_openai_what_we_read(shape: Shape) -> None:
    with openai_client(always(shape.body, JSON)) as client:
        response = client.responses.create(model="m", input="Hi")
    assert response.output_text == texts(told(shape))


# Errors

ERRORS = [
    (WireError("rate_limit", 429, "Slow down", "busy", headers={"retry-after": "7"}), "RateLimit"),
    (WireError("authentication", 401, "No"), "Authentication"),
    (WireError("permission", 403, "No"), "PermissionDenied"),
    (WireError("not_found", 404, "No such model"), "NotFound"),
    (WireError("context_window", 400, "Too long"), "BadRequest"),
    (WireError("overloaded", 529, "Busy"), None),
    (WireError("server", 500, "Broken"), "InternalServer"),
]


@pytest.mark.parametrize(("error", "name"), ERRORS)
def test_openais_client_raises_its_class(error: WireError, name: str | None) -> None:
    made = CLIENT_WIRES[WireName.CHAT].encode_error(error)
    respond = always(made.body, JSON | made.headers, made.status)
    raised = getattr(openai, f"{name or 'InternalServer'}Error")
    with openai_client(respond) as client, pytest.raises(raised) as caught:
        client.chat.completions.create(model="m", messages=USER)
    assert error.message in str(caught.value)
    if error.headers:
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.code == "busy"


@pytest.mark.parametrize(("error", "name"), ERRORS)
def test_anthropics_client_raises_its_class(error: WireError, name: str | None) -> None:
    made = CLIENT_WIRES[WireName.ANTHROPIC].encode_error(error)
    respond = always(made.body, JSON | made.headers, made.status)
    raised = getattr(anthropic, f"{name}Error") if name else anthropic.APIStatusError
    with anthropic_client(respond) as client, pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=9, messages=USER)
    assert error.message in str(caught.value)
    if error.headers:
        assert caught.value.response.headers["retry-after"] == "7"
    if error.kind == "overloaded":
        assert caught.value.status_code == 529


def cut(shape: Shape, name: WireName) -> bytes:
    """A stream that fails after its first events."""
    encoder = CLIENT_WIRES[name].stream_encoder(REQUEST)
    begun = b"".join([encoder.encode(event) for event in events(shape)[:3]])
    return begun + encoder.encode(Failed(WireError("server", 502, "The stream was cut")))


def test_an_error_in_a_stream_raises_in_every_client() -> None:
    shape = SHAPES[0]
    with (
        openai_client(always(cut(shape, WireName.CHAT), EVENTS)) as client,
        pytest.raises(openai.APIError, match="was cut"),
    ):
        list(client.chat.completions.create(model="m", messages=USER, stream=True))
    with (
        openai_client(always(cut(shape, WireName.RESPONSES), EVENTS)) as client,
        pytest.raises(openai.APIError, match="was cut"),
    ):
        list(client.responses.create(model="m", input="Hi", stream=True))
    with (
        anthropic_client(always(cut(shape, WireName.ANTHROPIC), EVENTS)) as client_,
        pytest.raises(anthropic.APIStatusError, match="was cut"),
    ):
        list(client_.messages.create(model="m", max_tokens=9, messages=USER, stream=True))
