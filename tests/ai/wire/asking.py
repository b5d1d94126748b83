"""Requests that the providers' own clients send, as they come out on other wires."""

import json
from typing import Any

from google.genai import types

from butterbase.ai.wire.form import ChatRequest
from butterbase.ai.wire.protocols import Kind, Target, WireName
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES, target_wire
from tests.ai.wire.clients import JSON, Respond, anthropic_client, openai_client
from tests.ai.wire.shapes_anthropic import ANTHROPIC_TEXT
from tests.ai.wire.shapes_chat import CHAT_TEXT
from tests.ai.wire.shapes_responses import RESPONSES

PNG = "data:image/png;base64,AAAA"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA},
}
USER: Any = [{"role": "user", "content": "Hi"}]


def recording(answer: bytes) -> tuple[Respond, list[bytes]]:
    bodies: list[bytes] = []

    def respond(request: bytes) -> tuple[int, dict[str, str], bytes]:
        bodies.append(request)
        return 200, JSON, answer

    return respond, bodies


def chat(**fields: Any) -> ChatRequest:
    respond, bodies = recording(CHAT_TEXT.body)
    with openai_client(respond) as client:
        client.chat.completions.create(**{"model": "m", "messages": USER, **fields})
    return CLIENT_WIRES[WireName.CHAT].decode_request(bodies[0])


def message(**fields: Any) -> ChatRequest:
    respond, bodies = recording(ANTHROPIC_TEXT.body)
    more = fields.pop("extra_body", {})
    with anthropic_client(respond) as client:
        client.messages.create(
            **{"model": "m", "max_tokens": 99, "messages": USER, **fields}, extra_body=more
        )
    return CLIENT_WIRES[WireName.ANTHROPIC].decode_request(bodies[0])


def responses(**fields: Any) -> ChatRequest:
    respond, bodies = recording(RESPONSES.body)
    with openai_client(respond) as client:
        client.responses.create(**{"model": "m", "input": "Hi", **fields})
    return CLIENT_WIRES[WireName.RESPONSES].decode_request(bodies[0])


def sent(request: ChatRequest, kind: Kind, model: str = "m", **more: Any) -> dict[str, Any]:
    wire = TARGET_WIRES[target_wire(WireName.CHAT, kind)]
    made = wire.encode_request(request, Target(kind, model, **more))
    body: dict[str, Any] = json.loads(made.body)
    return body


CONVERSATION: Any = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Where is this?"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
            },
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
            },
            {
                "id": "call.2",
                "type": "function",
                "function": {"name": "weather", "arguments": ""},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees":3}'},
    {"role": "tool", "tool_call_id": "call.2", "content": "unknown"},
    {"role": "user", "content": "And now?"},
]


ANTHROPIC_TURNS: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "image", "source": {"type": "url", "url": "https://pictures.test/a.jpg"}},
            {
                "type": "document",
                "title": "Notes",
                "source": {"type": "text", "media_type": "text/plain", "data": "All is well."},
            },
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "aGlkZGVu"},
            {"type": "text", "text": "I ask."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "is_error": True,
                "content": [
                    {"type": "text", "text": "no sky"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    },
                ],
            },
            {"type": "text", "text": "Try again"},
        ],
    },
]
ANTHROPIC_TOOL: Any = {"name": "weather", "description": "The weather", "input_schema": SCHEMA}


def check_gemini(body: dict[str, Any]) -> None:
    """Google's client knows every field."""
    for content in body["contents"]:
        types.Content.model_validate(content)
    if "systemInstruction" in body:
        types.Content.model_validate(body["systemInstruction"])
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    if "toolConfig" in body:
        types.ToolConfig.model_validate(body["toolConfig"])
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    known = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
    assert body.keys() <= known
