"""What two wires both can say gets from one to the other and back without a loss."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from butterbase.ai.wire.form import ChatRequest, Message, ResponseFormat, Tool
from butterbase.ai.wire.protocols import Kind, Target, WireName
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES, target_wire
from tests.ai.wire.strategies import hidden, requests, thoughts


def through(wire: WireName, kind: Kind, request: ChatRequest) -> ChatRequest:
    """Written as for a provider, and read as from a client."""
    target = Target(kind, request.model or "")
    written = TARGET_WIRES[wire].encode_request(request, target)
    return CLIENT_WIRES[wire].decode_request(written.body)


@settings(max_examples=60)
@given(requests())
def test_what_openai_can_say_outlives_each_wire(request: ChatRequest) -> None:
    again = through(WireName.CHAT, Kind.OPENAI, request)
    assert plain(again) == plain(request, name="answer")
    stopless = replace(request, stop=())
    again = through(WireName.RESPONSES, Kind.OPENAI, stopless)
    assert plain(again, strict=False) == plain(stopless, name="answer", strict=False)


@settings(max_examples=60)
@given(requests(thought=thoughts | hidden))
def test_signed_thoughts_outlive_each_wire(request: ChatRequest) -> None:
    """From OpenAI's form, with OpenRouter's fields for thoughts, to Anthropic's, and around."""
    in_chat = through(WireName.CHAT, Kind.OPENROUTER, request)
    assert plain(in_chat) == plain(request, name="answer")
    in_messages = through(WireName.ANTHROPIC, Kind.ANTHROPIC, in_chat)
    assert plain(in_messages) == plain(request)
    again = through(WireName.CHAT, Kind.OPENROUTER, in_messages)
    assert plain(again) == plain(request, name="answer")


@settings(max_examples=30)
@given(requests(thought=thoughts | hidden), st.sampled_from(list(Kind)))
def test_every_target_takes_what_all_can_say(request: ChatRequest, kind: Kind) -> None:
    wire = TARGET_WIRES[target_wire(WireName.CHAT, kind)]
    for model in ("claude-opus-5", "gpt-5", "gemini-3-pro", "llama"):
        made = wire.encode_request(request, Target(kind, model))
        assert isinstance(msgspec.json.decode(made.body), dict)


def plain(request: ChatRequest, *, name: str | None = None, strict: bool = True) -> Any:
    """Comparable: JSON as values, and what one of the wires names by itself left out."""
    made = replace(
        request,
        model=None,
        wants_usage=True,
        extra={},
        tools=tuple(_plain_tool(tool, strict=strict) for tool in request.tools),
        messages=tuple(_plain_message(message) for message in request.messages),
    )
    wanted = request.response_format
    if isinstance(wanted, ResponseFormat):
        named = wanted if name is None else replace(wanted, name=wanted.name or name)
        made = replace(made, response_format=named)
    return msgspec.json.decode(msgspec.json.encode(made))


def _plain_tool(tool: Tool, *, strict: bool) -> Tool:
    # The Responses API always says whether it is strict.
    return tool if strict else replace(tool, is_strict=bool(tool.is_strict))


def _plain_message(message: Message) -> Message:
    return replace(message, name=None)
