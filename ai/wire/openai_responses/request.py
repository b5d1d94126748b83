"""A client's request to OpenAI's Responses API → ChatRequest.

What lives on OpenAI's servers (earlier responses, conversations, stored prompts, their tools) is
there for models that are served by this API itself, and refused for others.
https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.decoding import decode_body, refuse_fields, unsupported
from butterbase.ai.wire.form import (
    NULL,
    ChatRequest,
    Effort,
    Message,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolChoice,
)
from butterbase.ai.wire.openai_chat.request import NO_ARGUMENTS
from butterbase.ai.wire.openai_responses.items import Item, read_messages

_STORED = ("previous_response_id", "conversation", "prompt", "background")
"""Fields that lean on what the provider keeps."""

_LOGPROBS = "message.output_text.logprobs"


class _Tool(Struct, frozen=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    format: Raw = NULL


class _ToolName(Struct, frozen=True):
    type: str
    name: str | None = None


class _ToolChoice(Struct, frozen=True):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[_ToolName] | None = None


class _Format(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    schema: Raw = NULL
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _TextConfig(Struct, frozen=True):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(Struct, frozen=True):
    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Request(Struct, frozen=True, kw_only=True):
    input: str | list[Item] | None = None
    model: str | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    # Read from the other fields as well: an answer repeats it.
    instructions: str | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_READ = frozenset(_Request.__struct_fields__) - {"instructions"}


def decode_request(body: bytes) -> ChatRequest:
    """Raises AiRequestError; WireUnsupportedError for what only OpenAI's own servers have."""
    wire, fields = decode_body(_REQUEST, body)
    extra = {name: raw for name, raw in fields.items() if name not in _READ}
    refuse_fields(extra, _STORED, "the provider of this model keeps nothing; send all in `input`")
    if not wire.input and not wire.instructions:
        raise AiRequestError("there is no input", param="input")
    tells_logprobs = _LOGPROBS in (wire.include or ()) or wire.top_logprobs is not None
    text = wire.text or _TextConfig()
    return ChatRequest(
        model=wire.model,
        messages=tuple(_messages(wire)),
        tools=tuple(map(_tool, wire.tools or ())),
        tool_choice=_tool_choice(wire.tool_choice),
        is_parallel=wire.parallel_tool_calls,
        response_format=None if text.format is None else _response_format(text.format),
        max_tokens=wire.max_output_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_logprob_count=(wire.top_logprobs or 0) if tells_logprobs else None,
        thinking=None if wire.reasoning is None else _thinking(wire.reasoning),
        is_streamed=bool(wire.stream),
        wants_usage=True,
        user=wire.safety_identifier or wire.user,
        metadata=wire.metadata,
        service_tier=wire.service_tier,
        verbosity=text.verbosity,
        cache_key=wire.prompt_cache_key,
        extra=extra,
    )


def _messages(wire: _Request) -> list[Message]:
    system = [Message("system", (Text(wire.instructions),))] if wire.instructions else []
    if isinstance(wire.input, str):
        return [*system, Message("user", (Text(wire.input),))]
    return [*system, *read_messages(wire.input or ())]


def _tool(tool: _Tool) -> Tool:
    if tool.type == "function" and tool.name is not None:
        schema = NO_ARGUMENTS if tool.parameters == NULL else tool.parameters
        return Tool(tool.name, tool.description, schema, tool.strict)
    if tool.type == "custom" and tool.name is not None:
        return Tool(tool.name, tool.description, is_custom=True, format=tool.format)
    raise unsupported("tools", f"OpenAI's own tool {tool.type!r}")


def _tool_choice(
    wire: Literal["auto", "none", "required"] | _ToolChoice | None,
) -> ToolChoice | None:
    if wire is None:
        return None
    if isinstance(wire, str):
        return ToolChoice(wire)
    if wire.type == "allowed_tools":
        names = [tool.name for tool in wire.tools or () if tool.name is not None]
        return ToolChoice(wire.mode, tuple(names))
    if wire.type not in {"function", "custom"} or wire.name is None:
        raise unsupported("tool_choice", f"OpenAI's own tool {wire.type!r}")
    return ToolChoice("required", (wire.name,))


def _response_format(wire: _Format) -> ResponseFormat:
    if wire.type == "json_schema" and wire.schema == NULL:
        raise AiRequestError("json_schema needs a schema", param="text")
    return ResponseFormat(wire.type, wire.schema, wire.name, wire.description, wire.strict)


def _thinking(wire: _Reasoning) -> Thinking:
    summary = wire.summary or wire.generate_summary
    return Thinking(
        is_on=False if wire.effort == "none" else None,
        effort=wire.effort,
        is_shown=True if summary else None,
        summary=summary,
    )
