"""ChatRequest → a request to OpenAI's Responses API.

For models that are served by this API only, and for clients of other wires whose models' thoughts
must outlive a call: here they come back encrypted, and go along with the next request.
https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from butterbase.ai.wire.decoding import present, unsupported
from butterbase.ai.wire.form import (
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
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.media import data_url
from butterbase.ai.wire.openai_chat.target import effort_of, is_thinking_model
from butterbase.ai.wire.openai_responses.answer import render_tool, render_tool_choice
from butterbase.ai.wire.openai_responses.items import render_citation
from butterbase.ai.wire.protocols import Target, UpstreamRequest


def encode_request(request: ChatRequest, target: Target) -> UpstreamRequest:
    """Raises WireUnsupportedError."""
    if request.choice_count > 1:
        raise unsupported("n", "more than one choice")
    if request.stop:
        raise unsupported("stop", "stop texts")
    thinks = is_thinking_model(target)
    body = {
        "model": target.model,
        "input": [item for message in request.messages for item in _items(message)],
        "tools": [render_tool(tool) for tool in request.tools] or None,
        "tool_choice": render_tool_choice(request) if request.tool_choice else None,
        "parallel_tool_calls": request.is_parallel if request.tools else None,
        "text": present(
            {"format": _format(request.response_format), "verbosity": request.verbosity}
        )
        or None,
        "reasoning": _reasoning(request.thinking) if thinks else None,
        "max_output_tokens": request.max_tokens or target.max_tokens,
        "temperature": None if thinks else request.temperature,
        "top_p": None if thinks else request.top_p,
        "top_logprobs": request.top_logprob_count or None,
        "include": _include(request, thinks=thinks) or None,
        "safety_identifier": request.user,
        "metadata": request.metadata,
        "service_tier": request.service_tier,
        "prompt_cache_key": request.cache_key,
        # Nothing is to be found again there: each request carries all of the conversation.
        "store": False,
        "stream": True if request.is_streamed else None,
    }
    return UpstreamRequest("responses", msgspec.json.encode(present(body)))


def _include(request: ChatRequest, *, thinks: bool) -> list[str]:
    include = ["reasoning.encrypted_content"] if thinks else []
    if request.top_logprob_count is not None:
        include.append("message.output_text.logprobs")
    return include


def _reasoning(thinking: Thinking | None) -> dict[str, Any] | None:
    if thinking is None:
        return None
    summary = thinking.summary or ("auto" if thinking.is_shown else None)
    return present({"effort": effort_of(thinking), "summary": summary}) or None


def _format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    name = wanted.name or ("answer" if wanted.kind == "json_schema" else None)
    return present(
        {
            "type": wanted.kind,
            "name": name,
            "description": wanted.description,
            "schema": wanted.schema,
            "strict": wanted.is_strict,
        }
    )


def _items(message: Message) -> Iterator[dict[str, Any]]:
    if message.role not in {"assistant", "tool"}:
        content = [_content(part) for part in message.parts]
        yield {"type": "message", "role": message.role, "content": content}
        return
    said: list[Text | Refusal] = []
    for part in message.parts:
        if isinstance(part, Text | Refusal):
            said.append(part)
            continue
        yield from _said(said)
        said = []
        yield from _item(part)
    yield from _said(said)


def _said(parts: Iterable[Text | Refusal]) -> Iterator[dict[str, Any]]:
    contents = [_output(part) for part in parts]
    if contents:
        yield {"type": "message", "role": "assistant", "content": contents}


def _output(part: Text | Refusal) -> dict[str, Any]:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    citations = [render_citation(citation) for citation in part.citations]
    return {"type": "output_text", "text": part.text, "annotations": citations}


def _item(part: Part) -> Iterator[dict[str, Any]]:
    match part:
        case Reasoning():
            signature = part.signature
            if signature is not None and signature.origin == "openai":
                summary = [{"type": "summary_text", "text": part.text}] if part.text else []
                encrypted = signature.value
                yield {"type": "reasoning", "summary": summary, "encrypted_content": encrypted}
        case ToolCall():
            kind, field = ("custom_tool_call", "input") if part.is_custom else _FUNCTION
            yield {"type": kind, "call_id": part.id, "name": part.name, field: part.arguments}
        case ToolResult():
            yield {
                "type": "custom_tool_call_output" if part.is_custom else "function_call_output",
                "call_id": part.call_id,
                "output": _result(part),
            }
        case _:
            raise unsupported("messages", "a picture or a file of the model's own")


_FUNCTION = ("function_call", "arguments")


def _result(result: ToolResult) -> str | list[dict[str, Any]]:
    texts = [part.text for part in result.parts if isinstance(part, Text)]
    if len(texts) == len(result.parts) <= 1:
        return "".join(texts)
    return [_content(part) for part in result.parts]


def _content(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "input_text", "text": part.text}
        case Image():
            url = part.url or (data_url(part.media_type, part.data) if part.data else None)
            made = {"image_url": url, "file_id": part.file_id, "detail": part.detail or "auto"}
            return {"type": "input_image", **present(made)}
        case File():
            return _file(part)
        case _:
            raise unsupported("messages", "this part in a message of the user's")


def _file(file: File) -> dict[str, Any]:
    if file.text is not None:
        head = "\n".join(text for text in (file.name, file.context) if text)
        return {"type": "input_text", "text": f"{head}\n\n{file.text}" if head else file.text}
    if (file.media_type or "").startswith("audio/"):
        raise unsupported("messages", "recordings")
    data = None if file.data is None else data_url(file.media_type, file.data)
    name = file.name or ("document.pdf" if data else None)
    made = {"file_data": data, "file_url": file.url, "file_id": file.file_id, "filename": name}
    return {"type": "input_file", **present(made)}
