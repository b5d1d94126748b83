"""A client's request for a message → ChatRequest.

https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.anthropic.blocks import (
    CacheControl,
    RequestBlock,
    Role,
    TextBlock,
    read_block,
)
from butterbase.ai.wire.decoding import decode_body, read, refuse_fields, unsupported
from butterbase.ai.wire.form import (
    NULL,
    ChatRequest,
    Effort,
    Message,
    Part,
    Reasoning,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)


class _Message(Struct, frozen=True):
    role: Role
    content: str | list[RequestBlock]


class _Tool(Struct, frozen=True):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NULL
    strict: bool | None = None
    cache_control: CacheControl | None = None


class _ToolChoice(Struct, frozen=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Struct, frozen=True):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class _Format(Struct, frozen=True):
    type: Literal["json_schema"]
    schema: Raw = NULL


class _OutputConfig(Struct, frozen=True):
    effort: Effort | None = None
    format: _Format | None = None


class _Metadata(Struct, frozen=True):
    user_id: str | None = None


class _Request(Struct, frozen=True, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    system: str | list[TextBlock] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    cache_control: CacheControl | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_SERVICE_TIERS = {"auto": "auto", "standard_only": "default"}


def decode_request(body: bytes) -> ChatRequest:
    """Raises AiRequestError."""
    wire, fields = decode_body(_REQUEST, body)
    extra = {name: raw for name, raw in fields.items() if name not in _Request.__struct_fields__}
    refuse_fields(extra, ("container", "mcp_servers"), "only Anthropic's own models have it")
    if wire.max_tokens == 0:
        raise unsupported("max_tokens", "a request for no answer")
    choice = wire.tool_choice
    output = wire.output_config or _OutputConfig()
    schema = output.format or wire.output_format
    return ChatRequest(
        model=wire.model,
        messages=(*_system(wire.system), *_messages(wire.messages)),
        tools=tuple(map(_tool, wire.tools or ())),
        tool_choice=_tool_choice(choice),
        is_parallel=False if choice and choice.disable_parallel_tool_use else None,
        response_format=None if schema is None else ResponseFormat("json_schema", schema.schema),
        max_tokens=wire.max_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop=tuple(wire.stop_sequences or ()),
        thinking=_thinking(wire.thinking, output.effort),
        is_streamed=bool(wire.stream),
        wants_usage=True,
        user=None if wire.metadata is None else wire.metadata.user_id,
        service_tier=_SERVICE_TIERS.get(wire.service_tier or ""),
        cache=read(wire.cache_control),
        extra=extra,
    )


def _system(system: str | list[TextBlock] | None) -> list[Message]:
    if not system:
        return []
    if isinstance(system, str):
        return [Message("system", (Text(system),))]
    return [Message("system", tuple(Text(block.text, block.cache) for block in system))]


def _messages(wire: list[_Message]) -> Iterable[Message]:
    """The results of tools, which stand among what the user says, become messages of their own."""
    for message in wire:
        if isinstance(message.content, str):
            yield Message(message.role, (Text(message.content),))
            continue
        parts = _with_signatures([read_block(block) for block in message.content])
        for is_result, group in groupby(parts, lambda part: isinstance(part, ToolResult)):
            if is_result and message.role != "user":
                raise AiRequestError("tool_result stands in a user's message", param="messages")
            yield Message("tool" if is_result else message.role, tuple(group))


def _with_signatures(parts: list[Part]) -> list[Part]:
    """Give a call the signature that a redacted block before it brought through this wire."""
    read: list[Part] = []
    for part in parts:
        before = read[-1] if read else None
        is_signed = isinstance(before, Reasoning) and before.is_redacted
        if (
            isinstance(part, ToolCall)
            and is_signed
            and isinstance(before, Reasoning)
            and before.signature is not None
            and before.signature.origin == "gemini"
        ):
            read[-1] = msgspec.structs.replace(part, signature=before.signature)
        else:
            read.append(part)
    return read


def _tool(tool: _Tool) -> Tool:
    if tool.type not in {None, "custom"}:
        raise unsupported("tools", f"Anthropic's own tool {tool.type!r}")
    if tool.name is None or tool.input_schema == NULL:
        raise AiRequestError("a tool has a name and an input_schema", param="tools")
    return Tool(
        tool.name, tool.description, tool.input_schema, tool.strict, cache=read(tool.cache_control)
    )


def _tool_choice(choice: _ToolChoice | None) -> ToolChoice | None:
    if choice is None:
        return None
    match choice.type:
        case "auto":
            return ToolChoice("auto")
        case "none":
            return ToolChoice("none")
        case "any":
            return ToolChoice("required")
        case "tool":
            if choice.name is None:
                raise AiRequestError("a tool is chosen by its name", param="tool_choice")
            return ToolChoice("required", (choice.name,))


def _thinking(wire: _Thinking | None, effort: Effort | None) -> Thinking | None:
    if wire is None:
        return None if effort is None else Thinking(effort=effort)
    return Thinking(
        is_on=wire.type != "disabled",
        effort=effort,
        token_count=wire.budget_tokens,
        is_shown=None if wire.display is None else wire.display != "omitted",
        is_adaptive=wire.type == "adaptive",
    )
