"""ChatRequest → a request for a message.

https://platform.claude.com/docs/en/api/messages
https://platform.claude.com/docs/en/build-with-claude/extended-thinking
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from butterbase.ai.wire import claude
from butterbase.ai.wire.decoding import (
    ALL_FIELDS,
    json_object,
    present,
    raw_text,
    refuse_fields,
    try_decode,
    unsupported,
)
from butterbase.ai.wire.form import (
    CacheMark,
    ChatRequest,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.protocols import Target, UpstreamRequest

_JSON_ONLY = "Answer with one JSON object and with nothing else, also without a code fence."
"""Anthropic constrains answers to a schema only; OpenAI's `json_object` has none."""

_BUDGET_TOKENS_MIN = 1024
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
"""Of the limit, for models that take their thinking as a number of tokens."""
_EFFORTS = {"minimal": "low"}
"""OpenAI's words that Anthropic has not."""
_SERVICE_TIERS = {"auto": "auto", "default": "standard_only"}

_REFUSED = ("audio", "modalities", "web_search_options")


def encode_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Raises WireUnsupportedError."""
    _check(request)
    max_tokens = request.max_tokens or target.max_tokens
    max_tokens = max_tokens or claude.default_max_tokens(target.model)
    system, messages = _split(request, target)
    thinking = _thinking(request, target, max_tokens)
    body = {
        "model": target.model,
        "max_tokens": max_tokens,
        "system": _system(system),
        "messages": _merged(messages),
        "tools": [_tool(tool, target) for tool in _chosen_tools(request)] or None,
        "tool_choice": _tool_choice(request),
        "stop_sequences": list(request.stop) or None,
        "thinking": thinking,
        "output_config": _output_config(request, target) or None,
        **_sampling(request, target, is_thinking=bool(thinking)),
        "metadata": request.user and {"user_id": request.user},
        "service_tier": _SERVICE_TIERS.get(request.service_tier or ""),
        "cache_control": _cache(request.cache),
        "stream": True if request.is_streamed else None,
    }
    return UpstreamRequest("messages", msgspec.json.encode(present(body)))


def _check(request: ChatRequest) -> None:
    if request.choice_count > 1:
        raise unsupported("n", "more than one choice")
    if request.top_logprob_count is not None:
        raise unsupported("logprobs", "logprobs")
    refuse_fields(request.extra, _REFUSED, "Anthropic's models do not have it")


def _sampling(request: ChatRequest, target: Target, *, is_thinking: bool) -> dict[str, Any]:
    """Without what the model refuses; OpenAI's temperature goes up to 2, Anthropic's to 1."""
    if not claude.takes_sampling(target.model) or is_thinking:
        return {}
    temperature, top_p = request.temperature, request.top_p
    takes_both = claude.version(target.model) < (4, 1)
    return {
        "temperature": None if temperature is None else min(temperature, 1.0),
        "top_p": top_p if temperature is None or takes_both else None,
        "top_k": request.top_k,
    }


# Thinking


def _thinking(request: ChatRequest, target: Target, max_tokens: int) -> dict[str, Any] | None:
    asked = request.thinking
    if asked is None:
        return None
    if asked.is_on is False:
        # A model that always thinks refuses to be told not to; an effort of none asks the same.
        return {"type": "disabled"} if asked.effort is None else None
    if request.tool_choice is not None and request.tool_choice.mode == "required":
        # Anthropic refuses both together.
        return None
    if not claude.thinks_adaptively(target.model):
        return _budget(request, asked, max_tokens)
    if asked.token_count is not None and claude.takes_sampling(target.model):
        return _budget(request, asked, max_tokens)
    if asked.is_shown is None and asked.is_adaptive:
        return {"type": "adaptive"}
    # Who asks in OpenAI's form reads the thoughts if there are any.
    return {"type": "adaptive", "display": "omitted" if asked.is_shown is False else "summarized"}


def _budget(request: ChatRequest, asked: Thinking, max_tokens: int) -> dict[str, Any] | None:
    tokens = asked.token_count or int(max_tokens * _SHARES.get(asked.effort or "medium", 0.5))
    tokens = min(max(tokens, _BUDGET_TOKENS_MIN), max_tokens - 1)
    if tokens < _BUDGET_TOKENS_MIN or not _has_thoughts_of_turn(request.messages):
        return None
    return {"type": "enabled", "budget_tokens": tokens}


def _has_thoughts_of_turn(messages: Sequence[Message]) -> bool:
    """Whether the thoughts that led to the calls of this turn are here, as Anthropic demands."""
    for message in reversed(messages):
        if message.role == "user":
            return True
        calls = any(isinstance(part, ToolCall) for part in message.parts)
        if message.role == "assistant" and calls:
            return any(_own_thought(part) for part in message.parts)
    return True


def _own_thought(part: Part) -> bool:
    return (
        isinstance(part, Reasoning)
        and part.signature is not None
        and part.signature.origin == "anthropic"
    )


def _output_config(request: ChatRequest, target: Target) -> dict[str, Any]:
    config: dict[str, Any] = {}
    effort = None if request.thinking is None else request.thinking.effort
    if effort is not None and effort != "none" and claude.thinks_adaptively(target.model):
        config["effort"] = _EFFORTS.get(effort, effort)
    wanted = request.response_format
    is_held = wanted is not None and wanted.kind == "json_schema"
    if wanted is not None and is_held and claude.takes_schemas(target.model):
        config["format"] = {"type": "json_schema", "schema": wanted.schema}
    return config


# Messages


def _split(request: ChatRequest, target: Target) -> tuple[list[Part], list[Message]]:
    """What goes into `system`, and the rest.

    A system message between the others stays in its place where the model takes it there.
    """
    system: list[Part] = []
    messages: list[Message] = []
    for message in request.messages:
        if message.role not in {"system", "developer"}:
            messages.append(message)
            continue
        follows_user = bool(messages) and messages[-1].role in {"user", "tool"}
        if follows_user and claude.takes_late_system(target.model):
            messages.append(Message("system", message.parts))
        else:
            system += message.parts
    if (text := _format_in_words(request, target)) is not None:
        system.append(Text(text))
    if not messages:
        # A system message alone asks for an answer in OpenAI's form; Anthropic needs a user's.
        return [], [Message("user", tuple(system))]
    return system, messages


def _format_in_words(request: ChatRequest, target: Target) -> str | None:
    """What is asked of a model that cannot be held to it."""
    wanted = request.response_format
    if wanted is None or wanted.kind == "text":
        return None
    if wanted.kind == "json_object":
        return _JSON_ONLY
    if claude.takes_schemas(target.model):
        return None
    return f"{_JSON_ONLY} It must fit this JSON schema: {raw_text(wanted.schema)}"


def _system(parts: list[Part]) -> str | list[dict[str, Any]] | None:
    blocks = list(_blocks(parts))
    if not blocks:
        return None
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks


def _merged(messages: list[Message]) -> list[dict[str, Any]]:
    """The results of tools and what the user says after them are one message."""
    merged: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None
    for message in messages:
        blocks = list(_blocks(message.parts))
        if results is not None and message.role == "user":
            results += blocks
            results = None
            continue
        if not blocks:
            continue
        role = "user" if message.role == "tool" else message.role
        is_text = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
        content = blocks[0]["text"] if is_text else blocks
        merged.append({"role": role, "content": content})
        results = blocks if message.role == "tool" else None
    return merged


def _blocks(parts: Iterable[Part]) -> Iterable[dict[str, Any]]:
    for part in parts:
        block = _block(part)
        if block is None:
            continue
        cache = None if isinstance(part, Reasoning | Refusal) else _cache(part.cache)
        yield block if cache is None else {**block, "cache_control": cache}


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case Text() | Refusal():
            # Anthropic refuses texts without a letter.
            return {"type": "text", "text": part.text} if part.text.strip() else None
        case Image():
            return {"type": "image", "source": _image(part)}
        case File():
            return _document(part)
        case ToolCall():
            return {
                "type": "tool_use",
                "id": _id(part.id),
                "name": part.name,
                "input": _input(part),
            }
        case ToolResult():
            content = list(_blocks(part.parts))
            return {
                "type": "tool_result",
                "tool_use_id": _id(part.call_id),
                **({"content": content} if content else {}),
                **({"is_error": True} if part.is_error else {}),
            }
        case Reasoning():
            return _thought(part)


def _thought(part: Reasoning) -> dict[str, Any] | None:
    """None for those of other providers, whose signatures Anthropic refuses."""
    if part.signature is None or part.signature.origin != "anthropic":
        return None
    if part.is_redacted:
        return {"type": "redacted_thinking", "data": part.signature.value}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature.value}


def _input(call: ToolCall) -> msgspec.Raw:
    given = None if call.is_custom else json_object(call.arguments)
    if given is None:
        raise unsupported("messages", f"arguments of {call.name!r} that are no JSON object")
    return given


def _id(call_id: str) -> str:
    # Others' ids may have dots and colons.
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)


def _image(image: Image) -> dict[str, Any]:
    if image.data is not None:
        return {"type": "base64", "media_type": image.media_type, "data": image.data}
    if image.url is not None:
        return {"type": "url", "url": image.url}
    return _uploaded(image.file_id)


def _uploaded(file_id: str | None) -> dict[str, Any]:
    if file_id is None or file_id.startswith("file-"):
        raise unsupported("messages", "a file uploaded to OpenAI", hint="send the file itself")
    return {"type": "file", "file_id": file_id}


def _document(file: File) -> dict[str, Any]:
    media_type = file.media_type or ""
    if file.text is not None:
        source = {"type": "text", "media_type": "text/plain", "data": file.text}
    elif file.data is not None and media_type == "application/pdf":
        source = {"type": "base64", "media_type": media_type, "data": file.data}
    elif file.data is not None and media_type.startswith("text/"):
        text = _decoded(file.data)
        source = {"type": "text", "media_type": "text/plain", "data": text}
    elif file.data is not None:
        raise unsupported("messages", f"a file of type {media_type or 'unknown'}")
    elif file.url is not None:
        source = {"type": "url", "url": file.url}
    else:
        source = _uploaded(file.file_id)
    cited = {"enabled": True} if file.is_cited else None
    more = {"title": file.name, "context": file.context, "citations": cited}
    return {"type": "document", "source": source, **present(more)}


def _decoded(data: str) -> str:
    try:
        return b64decode(data).decode()
    except ValueError as error:
        raise unsupported("messages", "a text that is no base64 of UTF-8") from error


def _cache(mark: CacheMark | None) -> dict[str, Any] | None:
    if mark is None:
        return None
    ttl = {"5m": "5m", "1h": "1h", "12h": "1h"}.get(mark.ttl or "")
    return present({"type": "ephemeral", "ttl": ttl})


# Tools


def _chosen_tools(request: ChatRequest) -> Iterable[Tool]:
    """Where only some may be chosen from, the others are left out."""
    choice = request.tool_choice
    # One that must be called is named in tool_choice, and the others may stay.
    is_named = choice is not None and choice.mode == "required" and len(choice.names) == 1
    names = () if choice is None or is_named else choice.names
    return [tool for tool in request.tools if not names or tool.name in names]


def _tool(tool: Tool, target: Target) -> dict[str, Any]:
    if tool.is_custom:
        raise unsupported("tools", f"the custom tool {tool.name!r}")
    return present(
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": _object_schema(tool.schema),
            "strict": (tool.is_strict and claude.takes_schemas(target.model)) or None,
            "cache_control": _cache(tool.cache),
        }
    )


def _object_schema(schema: Raw) -> Raw | dict[str, Any]:
    """Anthropic demands a type, which OpenAI does not."""
    fields = try_decode(ALL_FIELDS, schema)
    if fields is None:
        raise unsupported("tools", "a tool whose parameters are no JSON schema of an object")
    return schema if "type" in fields else {"type": "object", **fields}


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    if not request.tools:
        return None
    choice = request.tool_choice
    made: dict[str, Any]
    if choice is None or choice.mode == "auto":
        made = {"type": "auto"}
    elif choice.mode == "none":
        return {"type": "none"}
    elif len(choice.names) == 1:
        made = {"type": "tool", "name": choice.names[0]}
    else:
        made = {"type": "any"}
    if request.is_parallel is False:
        made["disable_parallel_tool_use"] = True
    return None if made == {"type": "auto"} and choice is None else made
