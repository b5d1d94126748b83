"""OpenAI's chat completions, as OpenAI and others write them."""

from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import DONE, Json, Shape, data, dumps

CHAT_HEAD: Json = {"id": "chatcmpl-A1", "created": 1_770_000_000, "model": "gpt-4o-mini-2024-07-18"}
CHAT_USAGE: Json = {
    "prompt_tokens": 1200,
    "completion_tokens": 30,
    "total_tokens": 1230,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 0},
}


def completion(message: Json, finish: str | None, **more: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    whole = {**CHAT_HEAD, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
    return dumps({**whole, **more})


def chunk(delta: Json | None = None, finish: str | None = None, **more: object) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return data({**CHAT_HEAD, "object": "chat.completion.chunk", "choices": choices, **more})


def function(call_id: str | None, name: str, arguments: str, **more: object) -> Json:
    made: Json = {"type": "function", "function": {"name": name, "arguments": arguments}, **more}
    return made if call_id is None else {"id": call_id, **made}


CHAT_TEXT = Shape(
    "chat text",
    WireName.CHAT,
    completion({"content": "Two plus two is four.", "refusal": None}, "stop"),
    chunk({"role": "assistant", "content": "", "refusal": None})
    + chunk({"content": "Two plus"})
    + chunk({"content": " two is four."})
    + chunk({}, "stop")
    + chunk(None, usage=CHAT_USAGE)
    + DONE,
)
CHAT_TOOLS = Shape(
    "chat parallel tools",
    WireName.CHAT,
    completion(
        {
            "content": None,
            "tool_calls": [
                function("call_1", "weather", '{"city":"Oslo"}'),
                function("call_2", "weather", '{"city":"Rome"}'),
            ],
        },
        "tool_calls",
    ),
    chunk({"role": "assistant", "content": None})
    + chunk({"tool_calls": [function("call_1", "weather", "", index=0)]})
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]})
    + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]})
    + chunk({"tool_calls": [function("call_2", "weather", "", index=1)]})
    + chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"city":"Rome"}'}}]})
    + chunk({}, "tool_calls")
    + chunk(None, usage=CHAT_USAGE)
    + DONE,
)
CHAT_REFUSAL = Shape(
    "chat refusal",
    WireName.CHAT,
    completion({"content": None, "refusal": "I will not do that."}, "stop"),
    chunk({"role": "assistant", "refusal": ""})
    + chunk({"refusal": "I will not"})
    + chunk({"refusal": " do that."})
    + chunk({}, "stop")
    + chunk(None, usage=CHAT_USAGE)
    + DONE,
)
# DeepSeek and vLLM: thoughts beside the text, the usage beside a choice.
CHAT_THOUGHTS = Shape(
    "chat thoughts, usage beside choices",
    WireName.CHAT,
    completion({"content": "4", "reasoning_content": "2 and 2"}, "stop"),
    chunk({"role": "assistant", "reasoning_content": "2 "})
    + b": keep-alive\n\n"
    + chunk({"reasoning_content": "and 2"})
    + chunk({"content": "4"})
    + chunk({}, "stop", usage=CHAT_USAGE)
    + DONE,
)
OPENROUTER_DETAILS: list[Json] = [
    {
        "type": "reasoning.text",
        "text": "It is cold.",
        "signature": "c2lnbmF0dXJl",
        "format": "anthropic-claude-v1",
        "index": 0,
    },
    {
        "type": "reasoning.encrypted",
        "data": "ZW5jcnlwdGVk",
        "format": "anthropic-claude-v1",
        "index": 1,
    },
]
OPENROUTER_USAGE: Json = {**CHAT_USAGE, "cost": 0.00123450001, "cost_details": {}}
OPENROUTER = Shape(
    "OpenRouter with signed thoughts and a cost",
    WireName.CHAT,
    completion(
        {
            "content": "Wear a coat.",
            "reasoning": "It is cold.",
            "reasoning_details": OPENROUTER_DETAILS,
        },
        "stop",
        usage=OPENROUTER_USAGE,
        provider="Anthropic",
    ),
    b": OPENROUTER PROCESSING\n\n"
    + chunk({"role": "assistant", "content": "", "reasoning": "It is"} | {
        "reasoning_details": [{"type": "reasoning.text", "text": "It is", "index": 0,
                               "format": "anthropic-claude-v1"}]})
    + chunk({"content": "", "reasoning": " cold."} | {
        "reasoning_details": [{"type": "reasoning.text", "text": " cold.", "index": 0,
                               "format": "anthropic-claude-v1"}]})
    + chunk({"content": "", "reasoning": None} | {
        "reasoning_details": [{"type": "reasoning.text", "signature": "c2lnbmF0dXJl", "index": 0,
                               "format": "anthropic-claude-v1"}]})
    + chunk({"content": "", "reasoning_details": OPENROUTER_DETAILS[1:]})
    + chunk({"content": "Wear a coat."})
    + chunk({"content": ""}, "stop")
    + chunk({"role": "assistant", "content": ""}, usage=OPENROUTER_USAGE)
    + DONE,
)  # fmt: skip
# Ollama: neither role nor usage, calls whole and all of the index 0, `stop`, and no [DONE].
OLLAMA_TOOLS = Shape(
    "Ollama tools",
    WireName.CHAT,
    completion(
        {
            "content": "",
            "tool_calls": [
                function("call_a", "weather", '{"city":"Oslo"}', index=0),
                function("call_b", "time", "{}", index=0),
            ],
        },
        "stop",
        usage=None,
    ),
    chunk(
        {"content": "", "tool_calls": [function("call_a", "weather", '{"city":"Oslo"}', index=0)]}
    )
    + chunk({"content": "", "tool_calls": [function("call_b", "time", "{}", index=0)]})
    + chunk({"content": ""}, "stop"),
)
# Some servers give a call neither id nor index, and its arguments as an object.
BARE_TOOLS = Shape(
    "calls without ids",
    WireName.CHAT,
    completion(
        {
            "content": "So:",
            "tool_calls": [
                {"function": {"name": "add", "arguments": {"a": 1}}},
                {"function": {"name": "add", "arguments": {"a": 2}}},
            ],
        },
        "tool_calls",
    ),
    chunk({"content": "So:"})
    + chunk({"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]})
    + chunk({"tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]})
    + chunk({}, "tool_calls", usage=CHAT_USAGE)
    + DONE,
)
CHAT_LENGTH = Shape(
    "chat cut at the limit, with logprobs",
    WireName.CHAT,
    dumps(
        {
            **CHAT_HEAD,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Once upon"},
                    "logprobs": {"content": [{"token": "Once"}, {"token": " upon"}]},
                    "finish_reason": "length",
                }
            ],
            "usage": CHAT_USAGE,
        }
    ),
    data(
        {
            **CHAT_HEAD,
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": "Once"},
                    "logprobs": {"content": [{"token": "Once"}]},
                }
            ],
        }
    )
    + data(
        {
            **CHAT_HEAD,
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": " upon"},
                    "logprobs": {"content": [{"token": " upon"}]},
                }
            ],
        }
    )
    + chunk({}, "length")
    + chunk(None, usage=CHAT_USAGE)
    + DONE,
)
