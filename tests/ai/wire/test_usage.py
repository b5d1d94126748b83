"""Tokens as each wire tells them: each counts once."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from butterbase.ai.wire.form import Usage
from butterbase.ai.wire.usage import (
    AnthropicUsage,
    ChatUsage,
    GeminiUsage,
    ResponsesUsage,
    render_anthropic_usage,
    render_chat_usage,
    render_responses_usage,
)
from tests.ai.wire.shapes_anthropic import MESSAGE_USAGE
from tests.ai.wire.shapes_chat import CHAT_USAGE, OPENROUTER_USAGE
from tests.ai.wire.shapes_gemini import GEMINI_USAGE
from tests.ai.wire.shapes_responses import RESPONSE_USAGE
from tests.ai.wire.shaping import Json, dumps


def read(kind: Any, wire: Json) -> Usage:
    usage = msgspec.json.decode(dumps(wire), type=kind).read()
    assert isinstance(usage, Usage)
    return usage


def test_openais() -> None:
    usage = Usage(1200, 30, 1230, cached_tokens=1024, reasoning_tokens=12)
    assert read(ChatUsage, CHAT_USAGE) == usage


def test_openrouters_own_cost_keeps_every_digit() -> None:
    usage = read(ChatUsage, OPENROUTER_USAGE)
    assert usage.cost == Decimal("0.00123450001")
    assert b'"cost":0.00123450001' in msgspec.json.encode(render_chat_usage(usage))


def test_anthropics_prompt_is_the_sum_of_its_parts() -> None:
    usage = read(AnthropicUsage, MESSAGE_USAGE)
    assert usage == Usage(
        prompt_tokens=1390,
        completion_tokens=40,
        total_tokens=1430,
        cached_tokens=1000,
        reasoning_tokens=15,
        cache_write_tokens=300,
        cache_write_hour_tokens=100,
    )


def test_geminis_thoughts_are_part_of_the_completion() -> None:
    usage = read(GeminiUsage, GEMINI_USAGE)
    assert usage == Usage(
        prompt_tokens=500,
        completion_tokens=80,
        total_tokens=580,
        cached_tokens=400,
        reasoning_tokens=60,
        prompt_audio_tokens=50,
    )
    with_tools = read(GeminiUsage, {**GEMINI_USAGE, "toolUsePromptTokenCount": 7})
    assert (with_tools.prompt_tokens, with_tools.total_tokens) == (507, 587)


def test_responses() -> None:
    usage = read(ResponsesUsage, RESPONSE_USAGE)
    assert usage == Usage(
        700, 80, 780, cached_tokens=600, reasoning_tokens=64, cache_write_tokens=50
    )


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        # xAI counts thoughts beside the completion; the total gives it away.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(10, 25, 35, reasoning_tokens=20),
        ),
        # Google in OpenAI's form does not even say how many they are.
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35},
            Usage(10, 25, 35, reasoning_tokens=20),
        ),
        # DeepSeek has a name of its own for what it read from its cache.
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64},
            Usage(100, 5, 105, cached_tokens=64),
        ),
        # More was read from the cache than there is of a prompt: it was counted beside it.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 900},
            },
            Usage(910, 5, 915, cached_tokens=900),
        ),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 8)),
        (
            {
                "prompt_tokens": 8,
                "completion_tokens": None,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            Usage(8, 0, 8),
        ),
    ],
)
def test_quirks_of_those_who_speak_openais_form(wire: Json, expected: Usage) -> None:
    assert read(ChatUsage, wire) == expected


def test_a_stream_of_anthropics_tells_it_in_two_parts() -> None:
    first = msgspec.json.decode(
        b'{"input_tokens":5,"cache_read_input_tokens":7,"output_tokens":1}', type=AnthropicUsage
    )
    last = msgspec.json.decode(b'{"output_tokens":30,"input_tokens":null}', type=AnthropicUsage)
    assert first.merged(last).read() == Usage(12, 30, 42, cached_tokens=7)
    assert last.read() is None


USAGE = Usage(
    prompt_tokens=1390,
    completion_tokens=40,
    total_tokens=1430,
    cached_tokens=1000,
    reasoning_tokens=15,
    cache_write_tokens=300,
    cost=Decimal("0.0000001"),
)


@pytest.mark.parametrize(
    ("kind", "render"),
    [
        (ChatUsage, render_chat_usage),
        (ResponsesUsage, render_responses_usage),
        (AnthropicUsage, render_anthropic_usage),
    ],
)
def test_what_is_rendered_is_read_as_the_same(kind: Any, render: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(render(USAGE)), type=kind).read() == USAGE


@pytest.mark.parametrize("wire", [b'{"prompt_tokens":-1}', b'{"prompt_tokens":"5"}', b"[]"])
def test_what_is_no_usage(wire: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wire, type=ChatUsage)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ('"NaN"', None), ('"sNaN"', None), ('"-Infinity"', None), ("-0.5", None),
        ("1e999990", None), ("1e-999990", None), ("1e12", None),
        ("0e999990", Decimal()), ("0", Decimal()), ("0.25", Decimal("0.25")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wire", ["chat", "responses", "anthropic"])
def test_a_cost_is_an_amount_or_none(wire: str, told: str, read: Decimal | None) -> None:
    """What is none would be no JSON for the client, or more digits than fit."""
    decoder: Any = {"chat": ChatUsage, "responses": ResponsesUsage, "anthropic": AnthropicUsage}
    tokens = '"prompt_tokens":1' if wire == "chat" else '"input_tokens":1'
    usage = msgspec.json.decode(f'{{{tokens},"cost":{told}}}', type=decoder[wire]).read()
    assert (usage.prompt_tokens, usage.cost) == (1, read)
