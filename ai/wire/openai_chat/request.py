"""A client's request for a chat completion → ChatRequest.

Beside OpenAI's own fields it reads what clients of OpenRouter, LiteLLM and DeepSeek send in its
form: `reasoning`, `thinking`, `top_k`, `cache_control`, and thoughts that go back.
https://platform.openai.com/docs/api-reference/chat/create
https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.decoding import decode_body, read, refuse_fields
from butterbase.ai.wire.form import (
    NULL,
    ChatRequest,
    Effort,
    File,
    Image,
    Message,
    Part,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from butterbase.ai.wire.openai_chat.content import CacheField, ContentPart, read_part
from butterbase.ai.wire.openai_chat.reasoning import (
    ExtraContent,
    ReasoningDetail,
    ThinkingBlock,
    google_signature,
    read_reasoning,
)

_Count = Annotated[int, Meta(ge=1)]


class _Function(Struct, frozen=True):
    name: str
    arguments: str = ""


class _Custom(Struct, frozen=True):
    name: str
    input: str = ""


class _ToolCall(Struct, frozen=True):
    id: str
    type: str = "function"
    function: _Function | None = None
    custom: _Custom | None = None
    extra_content: ExtraContent | None = None

    def read(self) -> ToolCall:
        signature = google_signature(self.extra_content)
        if self.function is not None:
            call = self.function
            return ToolCall(self.id, call.name, call.arguments, signature=signature)
        if self.custom is not None:
            return ToolCall(self.id, self.custom.name, self.custom.input, is_custom=True)
        raise AiRequestError(f"a tool call of type {self.type!r} is not known", param="messages")


class _Message(Struct, frozen=True):
    role: Role | Literal["function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Raw = NULL
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    extra_content: ExtraContent | None = None
    cache_control: CacheField | None = None


class _FunctionTool(Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class _CustomFormat(Struct, frozen=True):
    type: str
    grammar: dict[str, Raw] | None = None


class _CustomTool(Struct, frozen=True):
    name: str
    description: str | None = None
    format: _CustomFormat | None = None


class _Tool(Struct, frozen=True):
    type: str
    function: _FunctionTool | None = None
    custom: _CustomTool | None = None
    cache_control: CacheField | None = None


class _Named(Struct, frozen=True):
    name: str


class _ToolName(Struct, frozen=True):
    function: _Named | None = None
    custom: _Named | None = None
    name: str | None = None

    def read(self) -> str:
        named = self.function or self.custom
        if named is None and self.name is None:
            raise AiRequestError("a tool is chosen by its name", param="tool_choice")
        return named.name if named is not None else self.name or ""


class _AllowedTools(Struct, frozen=True):
    mode: Literal["auto", "required"]
    tools: list[_ToolName]


class _ToolChoice(Struct, frozen=True):
    type: Literal["function", "custom", "allowed_tools"]
    function: _Named | None = None
    custom: _Named | None = None
    allowed_tools: _AllowedTools | None = None


class _JsonSchema(Struct, frozen=True):
    name: str | None = None
    schema: Raw = NULL
    description: str | None = None
    strict: bool | None = None


class _ResponseFormat(Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class _ReasoningField(Struct, frozen=True):
    """OpenRouter's."""

    effort: Effort | None = None
    max_tokens: int | None = None
    exclude: bool | None = None
    enabled: bool | None = None
    summary: str | None = None


class _ThinkingField(Struct, frozen=True):
    """Anthropic's, which LiteLLM takes in OpenAI's form."""

    type: str
    budget_tokens: int | None = None


class _Request(Struct, frozen=True, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    reasoning: _ReasoningField | None = None
    thinking: _ThinkingField | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    prompt_cache_key: str | None = None
    cache_control: CacheField | None = None


NO_ARGUMENTS = Raw(b'{"type":"object","properties":{}}')
_REQUEST = msgspec.json.Decoder(_Request)


def decode_request(body: bytes) -> ChatRequest:
    """Raises AiRequestError."""
    wire, fields = decode_body(_REQUEST, body)
    extra = {name: raw for name, raw in fields.items() if name not in _Request.__struct_fields__}
    refuse_fields(extra, ("functions", "function_call"), "use tools and tool_choice")
    limits = [n for n in (wire.max_tokens, wire.max_completion_tokens) if n is not None]
    stop = [wire.stop] if isinstance(wire.stop, str) else wire.stop or []
    return ChatRequest(
        model=wire.model,
        messages=_messages(wire.messages),
        tools=tuple(map(_tool, wire.tools or ())),
        tool_choice=_tool_choice(wire.tool_choice),
        is_parallel=wire.parallel_tool_calls,
        response_format=_response_format(wire.response_format),
        max_tokens=min(limits, default=None),
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        stop=tuple(stop),
        seed=wire.seed,
        thinking=_thinking(wire),
        is_streamed=bool(wire.stream),
        wants_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        choice_count=wire.n or 1,
        top_logprob_count=(wire.top_logprobs or 0) if wire.logprobs else None,
        user=wire.safety_identifier or wire.user,
        metadata=wire.metadata,
        service_tier=wire.service_tier,
        verbosity=wire.verbosity,
        cache_key=wire.prompt_cache_key,
        cache=read(wire.cache_control),
        extra=extra,
    )


def _messages(wire: list[_Message]) -> tuple[Message, ...]:
    """Results of tools that follow each other become one message."""
    messages: list[Message] = []
    for message in wire:
        if message.role == "function" or message.function_call != NULL:
            raise AiRequestError(
                "messages of functions are not known", param="messages", hint="use tools"
            )
        if message.role == "tool":
            result = _tool_result(message)
            if messages and messages[-1].role == "tool":
                result = messages.pop().parts + result
            messages.append(Message("tool", result))
        else:
            messages.append(Message(message.role, _parts(message), message.name))
    return tuple(messages)


def _tool_result(message: _Message) -> tuple[Part, ...]:
    if message.tool_call_id is None:
        raise AiRequestError("a result of a tool needs its tool_call_id", param="messages")
    parts = tuple(_content(message))
    if not all(isinstance(part, Text | Image | File) for part in parts):
        raise AiRequestError("a tool's result has texts, images and files", param="messages")
    cache = read(message.cache_control)
    return (ToolResult(message.tool_call_id, parts, cache=cache),)  # type: ignore[arg-type]


def _parts(message: _Message) -> tuple[Part, ...]:
    thoughts = read_reasoning(
        details=message.reasoning_details,
        blocks=message.thinking_blocks,
        text=message.reasoning_content or message.reasoning,
    )
    after: list[Part] = [] if message.refusal is None else [Refusal(message.refusal)]
    after += [call.read() for call in message.tool_calls or ()]
    # An empty text beside these says nothing; alone it is what the client says.
    says_more = bool(thoughts or after) and message.content == ""
    return (*thoughts, *([] if says_more else _content(message)), *after)


def _content(message: _Message) -> list[Part]:
    signature = google_signature(message.extra_content)
    if isinstance(message.content, str):
        return [Text(message.content, read(message.cache_control), signature)]
    return [read_part(part) for part in message.content or ()]


def _tool(tool: _Tool) -> Tool:
    if tool.type == "function" and tool.function is not None:
        made = tool.function
        schema = NO_ARGUMENTS if made.parameters == NULL else made.parameters
        return Tool(
            made.name, made.description, schema, made.strict, cache=read(tool.cache_control)
        )
    if tool.type == "custom" and tool.custom is not None:
        custom = tool.custom
        return Tool(custom.name, custom.description, is_custom=True, format=_format(custom.format))
    raise AiRequestError(f"a tool of type {tool.type!r} is not known", param="tools")


def _format(wire: _CustomFormat | None) -> Raw:
    """As the Responses API writes it: the grammar beside its type."""
    if wire is None:
        return NULL
    return Raw(msgspec.json.encode({"type": wire.type, **(wire.grammar or {})}))


def _tool_choice(
    wire: Literal["auto", "none", "required"] | _ToolChoice | None,
) -> ToolChoice | None:
    if wire is None:
        return None
    if isinstance(wire, str):
        return ToolChoice(wire)
    if wire.allowed_tools is not None:
        allowed = wire.allowed_tools
        return ToolChoice(allowed.mode, tuple(tool.read() for tool in allowed.tools))
    return ToolChoice("required", (_ToolName(wire.function, wire.custom).read(),))


def _response_format(wire: _ResponseFormat | None) -> ResponseFormat | None:
    if wire is None:
        return None
    if wire.type != "json_schema":
        return ResponseFormat(wire.type)
    schema = wire.json_schema
    if schema is None or schema.schema == NULL:
        raise AiRequestError("json_schema needs a schema", param="response_format")
    return ResponseFormat(
        "json_schema", schema.schema, schema.name, schema.description, schema.strict
    )


def _thinking(wire: _Request) -> Thinking | None:
    asked = wire.reasoning or _ReasoningField()
    given = wire.thinking
    effort = wire.reasoning_effort or asked.effort
    is_on, token_count = asked.enabled, asked.max_tokens
    if given is not None:
        is_on = given.type != "disabled"
        token_count = given.budget_tokens
    if effort == "none":
        is_on = False
    thinking = Thinking(
        is_on=is_on,
        effort=effort,
        token_count=token_count,
        is_shown=None if asked.exclude is None else not asked.exclude,
        summary=asked.summary,
        is_adaptive=given is not None and given.type == "adaptive",
    )
    return None if thinking == Thinking() else thinking
