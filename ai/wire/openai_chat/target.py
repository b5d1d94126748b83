"""ChatRequest → a request for a chat completion, for OpenAI and all who speak its form.

They differ: OpenAI itself knows newer names and roles, others older ones, and some refuse a field
that they do not know. So fields that only refine an answer are sent to those who are known to
take them, and left out for others.
https://platform.openai.com/docs/api-reference/chat/create
https://openrouter.ai/docs/api-reference/overview
https://docs.ollama.com/api/openai-compatibility
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from butterbase.ai.wire.decoding import present, unsupported
from butterbase.ai.wire.form import (
    NULL,
    CacheMark,
    ChatRequest,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from butterbase.ai.wire.media import AUDIO_FORMATS, data_url
from butterbase.ai.wire.openai_chat.reasoning import render_google_signature, render_reasoning
from butterbase.ai.wire.protocols import Kind, Target, UpstreamRequest

# OpenAI's models that think: they take an effort, and no temperature.
_THINKS = re.compile(r"\A(?:o\d|gpt-(?:[5-9]|\d\d)(?!.*chat)|codex)", re.ASCII)

_LOW_TOKENS, _MEDIUM_TOKENS = 2048, 8192
"""Thoughts below these numbers are a low and a medium effort."""


def encode_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Raises WireUnsupportedError."""
    is_openais = target.kind is Kind.OPENAI
    max_tokens = request.max_tokens or target.max_tokens
    body = {
        "model": target.model,
        "messages": [made for message in request.messages for made in _message(message, target)],
        "tools": [_tool(tool, target) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, request.tools),
        "parallel_tool_calls": request.is_parallel if request.tools else None,
        "response_format": _response_format(request.response_format),
        "max_completion_tokens" if is_openais else "max_tokens": max_tokens,
        **_sampling(request, target),
        **_thinking(request.thinking, target),
        **_hints(request, target),
        "stream": True if request.is_streamed else None,
        # Else a stream tells no usage, and nobody could be charged for it.
        "stream_options": {"include_usage": True} if request.is_streamed else None,
    }
    return UpstreamRequest("chat/completions", msgspec.json.encode(present(body)))


def _sampling(request: ChatRequest, target: Target) -> dict[str, Any]:
    takes_all = not is_thinking_model(target)
    return {
        "temperature": request.temperature if takes_all else None,
        "top_p": request.top_p if takes_all else None,
        "top_k": request.top_k if target.kind is Kind.OPENROUTER else None,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "n": request.choice_count if request.choice_count != 1 else None,
        "logprobs": None if request.top_logprob_count is None else True,
        "top_logprobs": request.top_logprob_count or None,
    }


def _hints(request: ChatRequest, target: Target) -> dict[str, Any]:
    """What helps a provider and changes no answer."""
    if target.kind is Kind.OPENAI:
        return {
            "safety_identifier": request.user,
            "service_tier": request.service_tier,
            "verbosity": request.verbosity,
            "prompt_cache_key": request.cache_key,
        }
    if target.kind is Kind.OPENROUTER:
        return {"user": request.user, "verbosity": request.verbosity}
    return {}


def is_thinking_model(target: Target) -> bool:
    """Whether it takes an effort, and neither temperature nor top_p."""
    return target.kind is Kind.OPENAI and _THINKS.search(target.model) is not None


def _thinking(thinking: Thinking | None, target: Target) -> dict[str, Any]:
    if thinking is None:
        return {}
    if target.kind is Kind.OPENROUTER:
        asked = {
            "enabled": thinking.is_on,
            "effort": thinking.effort,
            # It takes one of the two.
            "max_tokens": None if thinking.effort else thinking.token_count,
            "exclude": None if thinking.is_shown is None else not thinking.is_shown,
        }
        return {"reasoning": present(asked)}
    if target.kind is not Kind.OPENAI:
        return {"reasoning_effort": thinking.effort}
    return {"reasoning_effort": effort_of(thinking)} if is_thinking_model(target) else {}


def effort_of(thinking: Thinking) -> str | None:
    """The effort, or what the number of tokens comes to."""
    if thinking.effort is not None or thinking.token_count is None:
        return thinking.effort
    if thinking.token_count < _LOW_TOKENS:
        return "low"
    return "medium" if thinking.token_count < _MEDIUM_TOKENS else "high"


# Messages


def _message(message: Message, target: Target) -> Iterable[dict[str, Any]]:
    if message.role == "tool":
        return _tool_results(message, target)
    if message.role == "assistant":
        return [_assistant(message, target)]
    role = message.role
    if role == "developer" and target.kind not in {Kind.OPENAI, Kind.OPENROUTER}:
        role = "system"
    content = _content(message.parts, target, joins=role != "user")
    return [present({"role": role, "content": content, "name": message.name})]


def _assistant(message: Message, target: Target) -> dict[str, Any]:
    said = [part for part in message.parts if isinstance(part, Text)]
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    refusals = [part.text for part in message.parts if isinstance(part, Refusal)]
    made: dict[str, Any] = {
        "role": "assistant",
        "content": _content(said, target, joins=True) if said else None,
    }
    if refusals:
        made["refusal"] = "".join(refusals)
    if calls:
        made["tool_calls"] = [render_tool_call(call, target) for call in calls]
    if message.name is not None:
        made["name"] = message.name
    made |= _thoughts([p for p in message.parts if isinstance(p, Reasoning)], target)
    if not said and not calls and not refusals:
        made["content"] = ""
    return made


def _thoughts(thoughts: list[Reasoning], target: Target) -> dict[str, Any]:
    """Thoughts go back to those who ask for them; OpenAI takes none in this form."""
    if target.kind is Kind.OPENROUTER:
        return render_reasoning(thoughts)
    if target.kind is Kind.OPENAI:
        return {}
    own = [thought for thought in thoughts if thought.signature is None]
    return render_reasoning(own)


def render_tool_call(call: ToolCall, target: Target | None = None) -> dict[str, Any]:
    """For a provider, or without a target for a client."""
    made: dict[str, Any] = {"id": call.id, "type": "custom" if call.is_custom else "function"}
    if call.is_custom:
        made["custom"] = {"name": call.name, "input": call.arguments}
    else:
        made["function"] = {"name": call.name, "arguments": call.arguments or "{}"}
    if target is None or target.kind is Kind.COMPATIBLE:
        made |= render_google_signature(call.signature)
    return made


def _tool_results(message: Message, target: Target) -> Iterable[dict[str, Any]]:
    """One message for each result. Pictures cannot stand in them, and follow as the user's."""
    shown: list[Part] = []
    for result in message.parts:
        if not isinstance(result, ToolResult):
            continue
        texts = [part for part in result.parts if isinstance(part, Text)]
        rest = [part for part in result.parts if not isinstance(part, Text)]
        if rest:
            shown += [Text(f"The result of the tool call {result.call_id}:"), *rest]
        if not texts:
            texts = [Text("It follows." if rest else "")]
        yield {
            "role": "tool",
            "tool_call_id": result.call_id,
            "content": _content(texts, target, joins=True),
        }
    if shown:
        yield {"role": "user", "content": _content(shown, target, joins=False)}


def _content(parts: Iterable[Part], target: Target, *, joins: bool) -> str | list[dict[str, Any]]:
    """A text where there is but one; `joins` makes several one for those who take no list."""
    parts = list(parts)
    knows_lists = target.kind in {Kind.OPENAI, Kind.OPENROUTER}
    texts = [part for part in parts if isinstance(part, Text)]
    marks = target.kind is Kind.OPENROUTER and any(_cache(part) for part in parts)
    is_plain = len(texts) == len(parts) and not marks
    if is_plain and (len(parts) == 1 or (joins and not knows_lists)):
        return "\n\n".join(part.text for part in texts)
    return [_part(part, target) for part in parts]


def _cache(part: Part) -> CacheMark | None:
    return part.cache if isinstance(part, Text | Image | File) else None


def _part(part: Part, target: Target) -> dict[str, Any]:
    match part:
        case Text():
            made: dict[str, Any] = {"type": "text", "text": part.text}
        case Image():
            made = _image(part)
        case File():
            made = _file(part, target)
        case Refusal():
            made = {"type": "text", "text": part.text}
        case ToolCall() | ToolResult() | Reasoning():
            raise unsupported("messages", "a tool call, a result or thoughts in this place")
    cache = _cache(part)
    if cache is not None and target.kind is Kind.OPENROUTER:
        ttl = cache.ttl if cache.ttl in {"5m", "1h"} else None
        made["cache_control"] = present({"type": "ephemeral", "ttl": ttl})
    return made


def _image(image: Image) -> dict[str, Any]:
    if image.file_id is not None:
        raise unsupported("messages", "an uploaded picture", hint="send the picture itself")
    url = image.url or data_url(image.media_type, image.data or "")
    return {"type": "image_url", "image_url": present({"url": url, "detail": image.detail})}


def _file(file: File, target: Target) -> dict[str, Any]:
    if file.text is not None:
        head = "\n".join(text for text in (file.name, file.context) if text)
        return {"type": "text", "text": f"{head}\n\n{file.text}" if head else file.text}
    if file.data is not None and file.media_type in AUDIO_FORMATS:
        audio = {"data": file.data, "format": AUDIO_FORMATS[file.media_type]}
        return {"type": "input_audio", "input_audio": audio}
    if file.file_id is not None:
        if target.kind is not Kind.OPENAI:
            raise unsupported("messages", "an uploaded file", hint="send the file itself")
        return {"type": "file", "file": {"file_id": file.file_id}}
    if file.url is not None and target.kind is not Kind.OPENROUTER:
        raise unsupported("messages", "a file by its URL", hint="send the file itself")
    data = file.url or data_url(file.media_type, file.data or "")
    return {"type": "file", "file": {"file_data": data, "filename": file.name or "document.pdf"}}


# Tools


def _tool(tool: Tool, target: Target) -> dict[str, Any]:
    made: dict[str, Any]
    if tool.is_custom:
        if target.kind is not Kind.OPENAI:
            raise unsupported("tools", f"the custom tool {tool.name!r}")
        custom = {"name": tool.name, "description": tool.description, "format": _format(tool)}
        return {"type": "custom", "custom": present(custom)}
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema,
        "strict": tool.is_strict,
    }
    made = {"type": "function", "function": present(function)}
    if tool.cache is not None and target.kind is Kind.OPENROUTER:
        made["cache_control"] = {"type": "ephemeral"}
    return made


_FORMAT = msgspec.json.Decoder(dict[str, Raw])


def _format(tool: Tool) -> dict[str, Any] | None:
    if tool.format == NULL:
        return None
    fields = _FORMAT.decode(tool.format)
    kind = fields.pop("type")
    return {"type": kind, "grammar": fields} if fields else {"type": kind}


def _tool_choice(choice: ToolChoice | None, tools: tuple[Tool, ...]) -> str | dict[str, Any] | None:
    if choice is None or not tools:
        return None
    custom = {tool.name for tool in tools if tool.is_custom}

    def named(name: str) -> dict[str, Any]:
        kind = "custom" if name in custom else "function"
        return {"type": kind, kind: {"name": name}}

    if choice.mode == "none" or not choice.names:
        return choice.mode
    if choice.mode == "required" and len(choice.names) == 1:
        return named(choice.names[0])
    allowed = {"mode": choice.mode, "tools": [named(name) for name in choice.names]}
    return {"type": "allowed_tools", "allowed_tools": allowed}


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.kind != "json_schema":
        return {"type": wanted.kind}
    schema = {
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.schema,
        "strict": wanted.is_strict,
    }
    return {"type": "json_schema", "json_schema": present(schema)}
