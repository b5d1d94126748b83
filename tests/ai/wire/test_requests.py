"""Conversations as the providers' own clients send them, and what becomes of them."""

from typing import Any

import anthropic.types
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import TypeAdapter

from butterbase.ai.wire.protocols import Kind
from tests.ai.wire.asking import (
    ANTHROPIC_TOOL,
    ANTHROPIC_TURNS,
    CONVERSATION,
    PNG,
    SCHEMA,
    WEATHER,
    chat,
    check_gemini,
    message,
    responses,
    sent,
)


def test_a_conversation_from_openai_to_anthropic() -> None:
    request = chat(
        messages=CONVERSATION,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=50,
        stop="END",
        user="u1",
        temperature=1.5,
        seed=7,
    )
    body = sent(request, Kind.ANTHROPIC, "claude-sonnet-4-5")
    assert body == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 50,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                    {
                        "type": "document",
                        "title": "a.pdf",
                        "source": {
                            "type": "base64",
                            "media_type": "application/pdf",
                            "data": "BBBB",
                        },
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "call_1",
                        "name": "weather",
                        "input": {"city": "Oslo"},
                    },
                    {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": [{"type": "text", "text": '{"degrees":3}'}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": [{"type": "text", "text": "unknown"}],
                    },
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [{"name": "weather", "description": "The weather", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "temperature": 1.0,
    }


def test_a_conversation_from_openai_to_gemini() -> None:
    request = chat(
        messages=CONVERSATION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=50,
        n=2,
        logprobs=True,
        top_logprobs=3,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
        },
        reasoning_effort="low",
    )
    body = sent(request, Kind.GEMINI, "gemini-3-pro")
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    user, model, results, last = body["contents"]
    assert user["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "BBBB"}},
    ]
    # Only the first call of a step has a signature, and Google's word for one that is lost.
    assert model == {
        "role": "model",
        "parts": [
            {
                "functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Oslo"}},
                "thoughtSignature": "skip_thought_signature_validator",
            },
            {"functionCall": {"id": "call.2", "name": "weather", "args": {}}},
        ],
    }
    assert [part["functionResponse"] for part in results["parts"]] == [
        {"id": "call_1", "name": "weather", "response": {"degrees": 3}},
        {"id": "call.2", "name": "weather", "response": {"output": "unknown"}},
    ]
    assert last == {"role": "user", "parts": [{"text": "And now?"}]}
    assert body["toolConfig"] == {
        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
    }
    assert body["generationConfig"] == {
        "maxOutputTokens": 50,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
    }
    check_gemini(body)


def test_a_conversation_from_anthropic_to_openai() -> None:
    request = message(
        messages=ANTHROPIC_TURNS,
        system=[
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
        tools=[ANTHROPIC_TOOL],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        thinking={"type": "enabled", "budget_tokens": 4096},
        extra_body={"temperature": 1, "top_k": 5},
    )
    body = sent(request, Kind.OPENAI, "gpt-5")
    assert body == {
        "model": "gpt-5",
        "messages": [
            {
                "role": "system",
                "content": [
                    {"type": "text", "text": "Be brief."},
                    {"type": "text", "text": "Be kind."},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "https://pictures.test/a.jpg"}},
                    {"type": "text", "text": "Notes\n\nAll is well."},
                ],
            },
            {
                "role": "assistant",
                "content": "I ask.",
                "tool_calls": [
                    {
                        "id": "toolu_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "no sky"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "The result of the tool call toolu_1:"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                ],
            },
            {"role": "user", "content": "Try again"},
        ],
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "max_completion_tokens": 99,
        "stop": ["END"],
        "safety_identifier": "u1",
        "reasoning_effort": "medium",
    }
    older = sent(request, Kind.OLLAMA, "llama3")
    assert older["messages"][0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert older["max_tokens"] == 99
    assert older["temperature"] == 1
    assert "safety_identifier" not in older
    routed = sent(request, Kind.OPENROUTER, "anthropic/claude-opus-5")
    assert routed["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    marked = routed["messages"][1]["content"][0]["cache_control"]
    assert marked == {"type": "ephemeral", "ttl": "1h"}
    assert routed["messages"][2]["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "text": "Hm.",
            "signature": "c2ln",
            "format": "anthropic-claude-v1",
            "index": 0,
        },
        {
            "type": "reasoning.encrypted",
            "data": "aGlkZGVu",
            "format": "anthropic-claude-v1",
            "index": 1,
        },
    ]
    assert routed["reasoning"] == {"enabled": True, "max_tokens": 4096}
    assert routed["top_k"] == 5


def test_a_conversation_from_anthropic_to_gemini() -> None:
    body = sent(message(messages=ANTHROPIC_TURNS, tools=[ANTHROPIC_TOOL]), Kind.GEMINI, "gemini-3")
    check_gemini(body)
    _, model, results, last = body["contents"]
    # Anthropic's thoughts are no use to another provider.
    assert [list(part) for part in model["parts"]] == [
        ["text"],
        ["functionCall", "thoughtSignature"],
    ]
    assert results["parts"] == [
        {
            "functionResponse": {
                "id": "toolu_1",
                "name": "weather",
                "response": {"error": "no sky"},
            }
        },
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
    ]
    assert last["parts"] == [{"text": "Try again"}]


def test_a_conversation_from_responses_to_anthropic() -> None:
    request = responses(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "Hi"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "bb1.anthropic.c2ln",
            },
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "I ask.", "annotations": []}],
            },
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "weather",
                "arguments": "{}",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "fine"},
        ],
        tools=[{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "p", "schema": SCHEMA}},
        max_output_tokens=77,
        reasoning={"effort": "high", "summary": "auto"},
    )
    body = sent(request, Kind.ANTHROPIC, "claude-opus-5")
    assert body == {
        "model": "claude-opus-5",
        "max_tokens": 77,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                    {"type": "text", "text": "I ask."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_1",
                        "content": [{"type": "text", "text": "fine"}],
                    }
                ],
            },
        ],
        "tools": [{"name": "weather", "input_schema": SCHEMA, "strict": True}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "output_config": {
            "effort": "high",
            "format": {"type": "json_schema", "schema": SCHEMA},
        },
    }


def test_anthropics_client_knows_the_messages_we_send() -> None:
    body = sent(chat(messages=CONVERSATION, tools=[WEATHER]), Kind.ANTHROPIC, "claude-opus-5")
    adapter: Any = TypeAdapter(anthropic.types.MessageParam)
    for made in body["messages"]:
        _exhaust(adapter.validate_python(made))
    tool_adapter: Any = TypeAdapter(anthropic.types.ToolParam)
    for tool in body["tools"]:
        _exhaust(tool_adapter.validate_python(tool))


def test_openais_client_knows_the_messages_we_send() -> None:
    request = message(messages=ANTHROPIC_TURNS, tools=[ANTHROPIC_TOOL])
    body = sent(request, Kind.OPENAI, "gpt-5")
    adapter: Any = TypeAdapter(ChatCompletionMessageParam)
    for made in body["messages"]:
        _exhaust(adapter.validate_python(made))
    tool_adapter: Any = TypeAdapter(ChatCompletionToolUnionParam)
    for tool in body["tools"]:
        _exhaust(tool_adapter.validate_python(tool))


def _exhaust(value: object) -> None:
    """Walk what pydantic checks only on the way."""
    if isinstance(value, dict):
        for inner in value.values():
            _exhaust(inner)
    elif not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        for inner in value:
            _exhaust(inner)
