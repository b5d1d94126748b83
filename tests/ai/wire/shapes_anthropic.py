"""Anthropic's messages."""

from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import Json, Shape, dumps, named

MESSAGE_HEAD: Json = {
    "id": "msg_01A", "type": "message", "role": "assistant", "model": "claude-opus-5",
    "stop_reason": None, "stop_sequence": None,
}  # fmt: skip
MESSAGE_USAGE: Json = {
    "input_tokens": 90,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1000,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 15},
    "service_tier": "standard",
}


def message(content: list[Json], reason: str, sequence: str | None = None) -> bytes:
    ended = {"stop_reason": reason, "stop_sequence": sequence}
    return dumps({**MESSAGE_HEAD, "content": content, **ended, "usage": MESSAGE_USAGE})


def message_start() -> bytes:
    usage = {**MESSAGE_USAGE, "output_tokens": 1}
    del usage["output_tokens_details"]
    started = named("message_start", message={**MESSAGE_HEAD, "content": [], "usage": usage})
    return started + named("ping")


def block(index: int, start: Json, *deltas: Json) -> bytes:
    return (
        named("content_block_start", index=index, content_block=start)
        + b"".join(named("content_block_delta", index=index, delta=delta) for delta in deltas)
        + named("content_block_stop", index=index)
    )


def message_end(reason: str, sequence: str | None = None) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": sequence}
    usage = {"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 15}}
    return named("message_delta", delta=delta, usage=usage) + named("message_stop")


ANTHROPIC_TEXT = Shape(
    "Anthropic text, ended by a stop sequence",
    WireName.ANTHROPIC,
    message([{"type": "text", "text": "Hello there."}], "stop_sequence", "END"),
    message_start()
    + block(
        0,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Hello"},
        {"type": "text_delta", "text": " there."},
    )
    + message_end("stop_sequence", "END"),
)
ANTHROPIC_TOOLS = Shape(
    "Anthropic thoughts and parallel tools",
    WireName.ANTHROPIC,
    message(
        [
            {"type": "thinking", "thinking": "Two cities.", "signature": "c2lnMQ=="},
            {"type": "redacted_thinking", "data": "aGlkZGVu"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        ],
        "tool_use",
    ),
    message_start()
    + block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Two "},
        {"type": "thinking_delta", "thinking": "cities."},
        {"type": "signature_delta", "signature": "c2lnMQ=="},
    )
    + block(1, {"type": "redacted_thinking", "data": "aGlkZGVu"})
    + block(2, {"type": "text", "text": ""}, {"type": "text_delta", "text": "I look."})
    + block(
        3,
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"city":'},
        {"type": "input_json_delta", "partial_json": '"Oslo"}'},
    )
    + block(4, {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}})
    + message_end("tool_use"),
)
ANTHROPIC_HIDDEN = Shape(
    "Anthropic thoughts that are not shown, cut at the limit",
    WireName.ANTHROPIC,
    message(
        [
            {"type": "thinking", "thinking": "", "signature": "c2lnMg=="},
            {"type": "text", "text": "A long"},
        ],
        "max_tokens",
    ),
    message_start()
    + block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "signature_delta", "signature": "c2lnMg=="},
    )
    + block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "A long"})
    + message_end("max_tokens"),
)
