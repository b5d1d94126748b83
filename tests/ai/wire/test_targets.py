"""What a request asks for, in the words of each target."""

import json
from typing import Any

import pytest

from butterbase.ai.wire.form import ChatRequest, Stamp
from butterbase.ai.wire.protocols import Kind, Target, WireName
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES
from tests.ai.wire.asking import (
    CONVERSATION,
    SCHEMA,
    USER,
    WEATHER,
    chat,
    check_gemini,
    message,
    responses,
    sent,
)
from tests.ai.wire.shapes_anthropic import ANTHROPIC_TOOLS
from tests.ai.wire.shapes_gemini import GEMINI_TOOLS


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        # From 4.6 on thinking is asked for by effort, and from 4.7 on nothing is sampled.
        (
            "claude-opus-5",
            {"reasoning_effort": "minimal", "temperature": 0.5},
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "low"},
            },
        ),
        ("claude-opus-5", {"reasoning_effort": "none"}, {}),
        ("claude-opus-4-6", {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5}),
        (
            "claude-sonnet-4-5",
            {"reasoning_effort": "low", "max_tokens": 10_000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        # There is no room for the least that Anthropic takes.
        ("claude-sonnet-4-5", {"reasoning_effort": "low", "max_tokens": 1000}, {}),
        (
            "claude-3-5-haiku-20241022",
            {"temperature": 0.5, "top_p": 0.9},
            {"temperature": 0.5, "top_p": 0.9},
        ),
    ],
)
def test_what_claude_models_take(
    model: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = sent(chat(**fields), Kind.ANTHROPIC, model)
    assert {
        k: v for k, v in body.items() if k not in {"model", "messages", "max_tokens"}
    } == expected


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-3-pro", "none", {"thinkingLevel": "minimal"}),
        ("gemini-3-pro", "xhigh", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
    ],
)
def test_what_gemini_models_take(model: str, effort: str, expected: object) -> None:
    body = sent(chat(reasoning_effort=effort), Kind.GEMINI, model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == expected


def test_a_limit_is_found_for_those_who_demand_one() -> None:
    assert sent(chat(), Kind.ANTHROPIC, "claude-opus-5")["max_tokens"] == 8192
    assert sent(chat(), Kind.ANTHROPIC, "claude-3-haiku-20240307")["max_tokens"] == 4096
    assert sent(chat(), Kind.ANTHROPIC, "claude-opus-5", max_tokens=500)["max_tokens"] == 500
    assert "max_tokens" not in sent(chat(), Kind.COMPATIBLE)
    assert sent(chat(), Kind.COMPATIBLE, max_tokens=500)["max_tokens"] == 500


def test_thinking_is_left_out_where_the_thoughts_of_the_turn_are_lost() -> None:
    """A model that takes a number of tokens refuses calls without the thoughts before them."""
    fields: dict[str, Any] = {"tools": [WEATHER], "reasoning_effort": "high"}
    lost = chat(messages=CONVERSATION[:-1], **fields)
    assert "thinking" not in sent(lost, Kind.ANTHROPIC, "claude-sonnet-4-5", max_tokens=9000)
    begun_anew = chat(messages=CONVERSATION, **fields)
    assert "thinking" in sent(begun_anew, Kind.ANTHROPIC, "claude-sonnet-4-5", max_tokens=9000)


def test_thinking_is_left_out_where_a_tool_must_be_called() -> None:
    request = chat(tools=[WEATHER], tool_choice="required", reasoning_effort="high")
    assert "thinking" not in sent(request, Kind.ANTHROPIC, "claude-opus-5")


@pytest.mark.parametrize("kind", [Kind.ANTHROPIC, Kind.GEMINI])
def test_a_system_message_alone_is_asked_as_the_users(kind: Kind) -> None:
    body = sent(chat(messages=[{"role": "system", "content": "Say hi"}]), kind, "claude-opus-5")
    (only,) = body.get("messages") or body["contents"]
    assert only["role"] == "user"
    assert "Say hi" in json.dumps(only)
    assert "system" not in body
    assert "systemInstruction" not in body


def test_a_system_message_in_the_midst_stays_there_where_the_model_takes_it() -> None:
    request = chat(messages=[*USER, {"role": "system", "content": "Now in French"}])
    new = sent(request, Kind.ANTHROPIC, "claude-opus-5")
    assert new["messages"][1] == {"role": "system", "content": "Now in French"}
    old = sent(request, Kind.ANTHROPIC, "claude-sonnet-4-5")
    assert old["system"] == "Now in French"


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    body = sent(chat(response_format={"type": "json_object"}), Kind.ANTHROPIC, "claude-opus-5")
    assert "JSON" in body["system"]
    assert "output_config" not in body


def test_a_developer_is_a_system_to_those_who_do_not_know_it() -> None:
    request = chat(messages=[{"role": "developer", "content": "Be brief"}, *USER])
    assert sent(request, Kind.OPENAI)["messages"][0]["role"] == "developer"
    assert sent(request, Kind.OLLAMA)["messages"][0]["role"] == "system"
    assert sent(request, Kind.ANTHROPIC)["system"] == "Be brief"


def test_a_stream_is_asked_for_with_its_usage() -> None:
    request = message(stream=False, extra_body={"stream": True})
    for kind in (Kind.OPENAI, Kind.OLLAMA, Kind.COMPATIBLE):
        body = sent(request, kind)
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}
    wire = TARGET_WIRES[WireName.GEMINI]
    made = wire.encode_request(request, Target(Kind.GEMINI, "gemini-3"))
    assert made.path == "models/gemini-3:streamGenerateContent?alt=sse"


def test_only_some_tools_may_be_called() -> None:
    other = {"type": "function", "function": {"name": "now", "parameters": SCHEMA}}
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "now"}}],
        },
    }
    request = chat(tools=[WEATHER, other], tool_choice=allowed)
    assert sent(request, Kind.OPENAI)["tool_choice"] == allowed
    anthropic = sent(request, Kind.ANTHROPIC)
    assert [tool["name"] for tool in anthropic["tools"]] == ["now"]
    gemini = sent(request, Kind.GEMINI)
    declared = gemini["tools"][0]["functionDeclarations"]
    assert [tool["name"] for tool in declared] == ["now"]


# Signatures on their way through a client of another wire


def test_geminis_signature_of_a_call_comes_back_through_each_client() -> None:
    stamp = Stamp("stamp", 1)
    answer = TARGET_WIRES[WireName.GEMINI].decode_answer(GEMINI_TOOLS.body, stamp)
    blank = ChatRequest()
    results = {"f1": "fine", "call_stamp_0_1": "noon"}
    made = {
        name: json.loads(CLIENT_WIRES[name].encode_answer(answer, blank)) for name in CLIENT_WIRES
    }
    chat_messages = [
        *USER,
        made[WireName.CHAT]["choices"][0]["message"],
        *({"role": "tool", "tool_call_id": i, "content": c} for i, c in results.items()),
    ]
    blocks = [{"type": "tool_result", "tool_use_id": i, "content": c} for i, c in results.items()]
    messages = [
        *USER,
        {"role": "assistant", "content": made[WireName.ANTHROPIC]["content"]},
        {"role": "user", "content": blocks},
    ]
    outputs = [
        {"type": "function_call_output", "call_id": i, "output": c} for i, c in results.items()
    ]
    items = [*USER, *made[WireName.RESPONSES]["output"], *outputs]
    for request in (
        chat(messages=chat_messages),
        message(messages=messages),
        responses(input=items),
    ):
        body = sent(request, Kind.GEMINI, "gemini-3-pro")
        check_gemini(body)
        signatures = [part.get("thoughtSignature") for part in body["contents"][1]["parts"]]
        assert signatures == ["c2lnbmVk", None]
        # Nobody else is bothered with it.
        for kind in (Kind.OPENAI, Kind.ANTHROPIC):
            assert "c2lnbmVk" not in json.dumps(sent(request, kind))


def test_anthropics_thoughts_come_back_through_each_client() -> None:
    answer = TARGET_WIRES[WireName.ANTHROPIC].decode_answer(ANTHROPIC_TOOLS.body, Stamp("s", 1))
    made = {
        name: json.loads(CLIENT_WIRES[name].encode_answer(answer, ChatRequest()))
        for name in (WireName.CHAT, WireName.RESPONSES)
    }
    from_chat = chat(messages=[*USER, made[WireName.CHAT]["choices"][0]["message"]])
    from_responses = responses(input=[*USER, *made[WireName.RESPONSES]["output"]])
    for request in (from_chat, from_responses):
        body = sent(request, Kind.ANTHROPIC, "claude-opus-5")
        assert body["messages"][1]["content"] == json.loads(ANTHROPIC_TOOLS.body)["content"]


@pytest.mark.parametrize(
    ("model", "is_held"), [("claude-opus-5", True), ("claude-3-haiku-20240307", False)]
)
def test_a_schema_is_asked_for_in_words_where_the_model_takes_none(
    model: str, is_held: bool
) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    body = sent(chat(response_format=wanted, tools=[strict]), Kind.ANTHROPIC, model)
    assert ("output_config" in body) is is_held
    assert ("city" in body.get("system", "")) is not is_held
    assert ("strict" in body["tools"][0]) is is_held


def test_a_tool_without_parameters_is_an_object_to_anthropic() -> None:
    for function in ({"name": "now"}, {"name": "now", "parameters": {}}):
        body = sent(chat(tools=[{"type": "function", "function": function}]), Kind.ANTHROPIC)
        assert body["tools"][0]["input_schema"]["type"] == "object"


def test_a_responses_target_keeps_nothing_and_gets_its_thoughts_back() -> None:
    items: Any = [
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "b3Blbg=="},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "fine"},
    ]
    request = responses(input=items, reasoning={"effort": "high", "summary": "auto"})
    made = TARGET_WIRES[WireName.RESPONSES].encode_request(request, Target(Kind.OPENAI, "gpt-5"))
    assert made.path == "responses"
    body = json.loads(made.body)
    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert [item["type"] for item in body["input"]] == [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
    ]
    assert body["input"][1]["encrypted_content"] == "b3Blbg=="
