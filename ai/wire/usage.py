"""The tokens of a call as each wire tells them ↔ Usage, where each token counts once.

Wires differ in what includes what: OpenAI's and Gemini's prompt tokens include the cached ones,
Anthropic's do not; OpenAI's and Anthropic's completion tokens include the thoughts, Gemini's do
not, and those of xAI and of Google told in OpenAI's form do not either.
https://platform.openai.com/docs/api-reference/chat/object
https://platform.claude.com/docs/en/api/messages
https://ai.google.dev/api/generate-content#UsageMetadata
https://openrouter.ai/docs/use-cases/usage-accounting
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from butterbase.ai.wire.form import (
    Usage,
)
from butterbase.projections.usage import Tokens

# OpenAI: chat completions and embeddings


class _PromptDetails(Struct, frozen=True):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None


class _CompletionDetails(Struct, frozen=True):
    reasoning_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None


class ChatUsage(Struct, frozen=True):
    prompt_tokens: Tokens
    completion_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Tokens | None = None
    """DeepSeek's."""
    cost: Decimal | None = None
    """OpenRouter's, in USD."""

    def read(self) -> Usage:
        details = self.prompt_tokens_details or _NO_PROMPT_DETAILS
        more = self.completion_tokens_details or _NO_COMPLETION_DETAILS
        cached = details.cached_tokens or self.prompt_cache_hit_tokens or 0
        written, thoughts = details.cache_write_tokens or 0, more.reasoning_tokens or 0
        prompt = _including(self.prompt_tokens, cached, written)
        completion = self.completion_tokens or 0
        # xAI and Google count thoughts beside the completion, and only the total has them.
        beside = max(0, (self.total_tokens or 0) - prompt - completion)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion + beside,
            total_tokens=prompt + completion + beside,
            cached_tokens=cached,
            reasoning_tokens=max(thoughts, beside),
            cache_write_tokens=written,
            prompt_audio_tokens=details.audio_tokens or 0,
            completion_audio_tokens=more.audio_tokens or 0,
            cost=_amount(self.cost),
        )


_NO_PROMPT_DETAILS, _NO_COMPLETION_DETAILS = _PromptDetails(), _CompletionDetails()


def render_chat_usage(usage: Usage) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.prompt_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.completion_audio_tokens,
        },
    }
    if usage.cost is not None:
        rendered["cost"] = _number(usage.cost)
    return rendered


# OpenAI: Responses


class _WriteDetails(Struct, frozen=True):
    ttl_12h_tokens: Tokens | None = None


class _InputDetails(Struct, frozen=True):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    cache_write_tokens_details: _WriteDetails | None = None


class _OutputDetails(Struct, frozen=True):
    reasoning_tokens: Tokens | None = None


class ResponsesUsage(Struct, frozen=True):
    input_tokens: Tokens
    output_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    cost: Decimal | None = None

    def read(self) -> Usage:
        details = self.input_tokens_details or _InputDetails()
        cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        long_lived = details.cache_write_tokens_details or _WriteDetails()
        prompt = _including(self.input_tokens, cached, written)
        completion = self.output_tokens or 0
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=cached,
            reasoning_tokens=(self.output_tokens_details or _OutputDetails()).reasoning_tokens or 0,
            cache_write_tokens=written,
            cache_write_hour_tokens=long_lived.ttl_12h_tokens or 0,
            cost=_amount(self.cost),
        )


def render_responses_usage(usage: Usage) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
    if usage.cost is not None:
        rendered["cost"] = _number(usage.cost)
    return rendered


# Anthropic


class _CacheCreation(Struct, frozen=True):
    ephemeral_1h_input_tokens: Tokens | None = None


class _ThinkingDetails(Struct, frozen=True):
    thinking_tokens: Tokens | None = None


class AnthropicUsage(Struct, frozen=True):
    """A stream tells it in two parts, and the later one counts where it says something."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _ThinkingDetails | None = None
    cost: Decimal | None = None

    def merged(self, later: "AnthropicUsage") -> "AnthropicUsage":
        told = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(later, name)) is not None
        }
        return msgspec.structs.replace(self, **told)

    def read(self) -> Usage | None:
        if self.input_tokens is None:
            return None
        cached = self.cache_read_input_tokens or 0
        written = self.cache_creation_input_tokens or 0
        prompt, completion = self.input_tokens + cached + written, self.output_tokens or 0
        details = self.output_tokens_details or _ThinkingDetails()
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=cached,
            reasoning_tokens=details.thinking_tokens or 0,
            cache_write_tokens=written,
            cache_write_hour_tokens=(
                (self.cache_creation or _CacheCreation()).ephemeral_1h_input_tokens or 0
            ),
            cost=_amount(self.cost),
        )


def render_anthropic_usage(usage: Usage) -> dict[str, Any]:
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    long_lived = usage.cache_write_hour_tokens
    rendered: dict[str, Any] = {
        "input_tokens": max(0, usage.prompt_tokens - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - long_lived,
            "ephemeral_1h_input_tokens": long_lived,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
    if usage.cost is not None:
        rendered["cost"] = _number(usage.cost)
    return rendered


# Gemini


class _Modality(Struct, frozen=True, rename="camel"):
    modality: str = ""
    token_count: Tokens = 0


class GeminiUsage(Struct, frozen=True, rename="camel"):
    prompt_token_count: Tokens | None = None
    candidates_token_count: Tokens | None = None
    thoughts_token_count: Tokens | None = None
    tool_use_prompt_token_count: Tokens | None = None
    cached_content_token_count: Tokens | None = None
    total_token_count: Tokens | None = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None

    def read(self) -> Usage | None:
        if self.prompt_token_count is None:
            return None
        prompt = self.prompt_token_count + (self.tool_use_prompt_token_count or 0)
        thoughts = self.thoughts_token_count or 0
        completion = (self.candidates_token_count or 0) + thoughts
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=self.cached_content_token_count or 0,
            reasoning_tokens=thoughts,
            prompt_audio_tokens=_audio(self.prompt_tokens_details),
            completion_audio_tokens=_audio(self.candidates_tokens_details),
        )


def _audio(details: Sequence[_Modality] | None) -> int:
    return sum(part.token_count for part in details or () if part.modality == "AUDIO")


_DIGITS_MAX, _DECIMALS_MAX = 12, 30
"""Of a cost, before and behind the point."""

_COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "cost")


def add(one: Usage, other: Usage) -> Usage:
    """Of two calls together."""
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    costs = [usage.cost for usage in (one, other) if usage.cost is not None]
    return msgspec.structs.replace(one, **counts, cost=sum(costs, Decimal()) if costs else None)


def _including(prompt: int, cached: int, written: int) -> int:
    """The prompt's tokens with those of the cache, which some proxies count beside it."""
    return prompt if cached + written <= prompt else prompt + cached + written


def _amount(usd: Decimal | None) -> Decimal | None:
    """None for what is no amount of money: a text such as `NaN` decodes as well, and written out an
    exponent of a million has as many digits."""
    if usd is None or not usd.is_finite():
        return None
    if usd.is_zero():
        return Decimal()
    is_kept = not usd.is_signed() and -_DECIMALS_MAX <= usd.adjusted() < _DIGITS_MAX
    return usd if is_kept else None


def _number(amount: Decimal) -> msgspec.Raw:
    # As the provider wrote it: a float could lose the last digits of an amount.
    return msgspec.Raw(format(amount, "f").encode())
