"""ChatRequest → generateContent and streamGenerateContent.

https://ai.google.dev/api/generate-content
https://ai.google.dev/gemini-api/docs/function-calling
https://ai.google.dev/gemini-api/docs/structured-output
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from butterbase.ai.wire.decoding import json_object, present, refuse_fields, unsupported
from butterbase.ai.wire.form import (
    ChatRequest,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Signature,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.gemini import models
from butterbase.ai.wire.media import guess_media_type
from butterbase.ai.wire.protocols import Target, UpstreamRequest

_NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google documents for calls in a history that another model made, or whose signature a
client lost."""

_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192}
_BUDGET_TOKENS_MAX = 24_576
"""Of thoughts, for models that take a number; Google's own mapping of OpenAI's efforts."""
_LEVELS = {"none": "minimal", "xhigh": "high", "max": "high"}
"""Efforts that are not the names of levels."""

_REFUSED = ("audio", "modalities", "web_search_options")


def encode_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Raises WireUnsupportedError."""
    refuse_fields(request.extra, _REFUSED, "the gateway does not translate it for Gemini")
    system = [p for m in request.messages if m.role in {"system", "developer"} for p in m.parts]
    rest = [m for m in request.messages if m.role not in {"system", "developer"}]
    if not rest:
        # A system message alone asks for an answer in OpenAI's form; Gemini needs a user's.
        rest, system = [Message("user", tuple(system))], []
    names = _call_names(rest)
    body = {
        "systemInstruction": _system(system),
        "contents": [c for m in rest if (c := _content(m, names, target.model))["parts"]],
        "tools": _tools(request),
        "toolConfig": _tool_config(request),
        "generationConfig": present(_config(request, target)) or None,
    }
    method = "streamGenerateContent?alt=sse" if request.is_streamed else "generateContent"
    path = f"{models.path(target.model)}:{method}"
    return UpstreamRequest(path, msgspec.json.encode(present(body)))


def _config(request: ChatRequest, target: Target) -> dict[str, Any]:
    count = request.top_logprob_count
    wanted = request.response_format
    is_json = wanted is not None and wanted.kind != "text"
    return {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.max_tokens or target.max_tokens,
        "stopSequences": list(request.stop) or None,
        "candidateCount": request.choice_count if request.choice_count != 1 else None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "responseLogprobs": None if count is None else True,
        "logprobs": count or None,
        "responseMimeType": "application/json" if is_json else None,
        "responseJsonSchema": None if wanted is None else wanted.schema,
        "thinkingConfig": _thinking(request.thinking, target.model),
    }


def _thinking(asked: Thinking | None, model: str) -> dict[str, Any] | None:
    if asked is None or not models.thinks(model):
        return None
    is_off = asked.is_on is False
    effort = "none" if is_off else asked.effort
    made: dict[str, Any] = {}
    if not models.thinks_by_level(model):
        made["thinkingBudget"] = _budget(asked.token_count, effort)
    elif effort is not None:
        made["thinkingLevel"] = _LEVELS.get(effort, effort)
    elif asked.token_count is not None:
        made["thinkingBudget"] = asked.token_count
    if not is_off and asked.is_shown is not False:
        made["includeThoughts"] = True
    return present(made)


def _budget(token_count: int | None, effort: str | None) -> int | None:
    if effort == "none":
        return 0
    if token_count is not None:
        return min(token_count, _BUDGET_TOKENS_MAX)
    return None if effort is None else _BUDGETS.get(effort, _BUDGET_TOKENS_MAX)


# Messages


def _system(parts: list[Part]) -> dict[str, Any] | None:
    texts = [{"text": part.text} for part in parts if isinstance(part, Text) and part.text]
    return {"parts": texts} if texts else None


def _call_names(messages: Iterable[Message]) -> dict[str, str]:
    """The names of the called tools: Google's results name the tool as well as the call."""
    return {part.id: part.name for m in messages for part in m.parts if isinstance(part, ToolCall)}


def _content(message: Message, names: Mapping[str, str], model: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    lacks_signature = models.demands_signatures(model)
    for part in message.parts:
        made = list(_part(part, names))
        if isinstance(part, ToolCall):
            # Of calls side by side the first one has the signature of all.
            if lacks_signature:
                made[0].setdefault("thoughtSignature", _NO_SIGNATURE)
            lacks_signature = False
        parts += made
    return {"role": "model" if message.role == "assistant" else "user", "parts": parts}


def _part(part: Part, names: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    match part:
        case Text():
            if part.text or part.signature is not None:
                yield {"text": part.text, **_signature(part.signature)}
        case Refusal():
            yield {"text": part.text}
        case Image():
            yield _media(part.data, part.url, part.file_id, part.media_type or "image/png")
        case File():
            yield _file(part)
        case ToolCall():
            yield _call(part)
        case ToolResult():
            yield from _result(part, names)
        case Reasoning():
            # Its own thoughts go back with their signature; without one they mean nothing to it.
            if signature := _signature(part.signature):
                text = {} if part.is_redacted else {"text": part.text, "thought": True}
                yield {"text": "", **text, **signature}


def _signature(signature: Signature | None) -> dict[str, Any]:
    if signature is None or signature.origin != "gemini":
        return {}
    return {"thoughtSignature": signature.value}


def _call(call: ToolCall) -> dict[str, Any]:
    args = None if call.is_custom else json_object(call.arguments)
    if args is None:
        raise unsupported("messages", f"arguments of {call.name!r} that are no JSON object")
    made = {"id": call.id, "name": call.name, "args": args}
    return {"functionCall": made, **_signature(call.signature)}


def _result(result: ToolResult, names: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    name = names.get(result.call_id)
    if name is None:
        raise unsupported("messages", f"the result of a call that is not there: {result.call_id}")
    text = "\n\n".join(part.text for part in result.parts if isinstance(part, Text))
    told = None if result.is_error or not text.strip() else json_object(text)
    response: Any = told if told is not None else {"error" if result.is_error else "output": text}
    yield {"functionResponse": {"id": result.call_id, "name": name, "response": response}}
    for part in result.parts:
        if not isinstance(part, Text):
            yield from _part(part, names)


def _file(file: File) -> dict[str, Any]:
    if file.text is not None:
        head = "\n".join(text for text in (file.name, file.context) if text)
        return {"text": f"{head}\n\n{file.text}" if head else file.text}
    media_type = file.media_type or guess_media_type(file.name)
    return _media(file.data, file.url, file.file_id, media_type or "application/pdf")


def _media(
    data: str | None, url: str | None, file_id: str | None, media_type: str
) -> dict[str, Any]:
    if data is not None:
        return {"inlineData": {"mimeType": media_type, "data": data}}
    if url is None and (file_id is None or not file_id.startswith("https://")):
        raise unsupported("messages", "an uploaded file", hint="send the file itself")
    uri = url or file_id
    return {"fileData": {"mimeType": guess_media_type(uri) or media_type, "fileUri": uri}}


# Tools


def _tools(request: ChatRequest) -> list[dict[str, Any]] | None:
    choice = request.tool_choice
    only = choice.names if choice is not None and choice.mode == "auto" else ()
    made = [_declaration(tool) for tool in request.tools if not only or tool.name in only]
    return [{"functionDeclarations": made}] if made else None


def _declaration(tool: Tool) -> dict[str, Any]:
    if tool.is_custom:
        raise unsupported("tools", f"the custom tool {tool.name!r}")
    return present(
        {
            "name": tool.name,
            "description": tool.description,
            "parametersJsonSchema": tool.schema,
        }
    )


def _tool_config(request: ChatRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]
    names = list(choice.names) if choice.mode == "required" else None
    return {"functionCallingConfig": present({"mode": mode, "allowedFunctionNames": names or None})}
