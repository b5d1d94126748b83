"""The one form between all wires: a request, an answer, the events of a streamed answer.

A client's wire decodes into it and a provider's encodes from it, and back. Of what both sides can
say nothing is lost here; what only one can say is refused or left out where the wire says so.
Texts of JSON stay as they came (`Raw`, and the arguments of a call), so that numbers keep every
digit and fields their order.
"""

from decimal import Decimal
from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from butterbase.projections.usage import Tokens

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]

Finish: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "pause", "context_window"
]
"""Why a choice ended. `pause`: the provider wants to be asked to go on; `context_window`: the
conversation, and not the limit on the answer, was too long."""

NULL = Raw(b"null")
"""JSON that is not there; a Raw cannot be None."""

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class CacheMark(Struct, frozen=True):
    """The prompt up to and with this part may be kept by the provider."""

    ttl: str | None = None
    """As the client's wire says it: `5m`, `1h`, `30m`, …; None is the provider's own."""


class Signature(Struct, frozen=True):
    """What a provider wants to see again, unchanged, with the part it came with."""

    value: str
    origin: str
    """Who can read it: `anthropic`, `gemini`, `openai`, … Sent to nobody else."""


class Citation(Struct, frozen=True):
    """A page on the web that stands behind a piece of the text."""

    url: str
    title: str
    start: int
    """First character of the piece, and the one behind its last."""
    end: int


# The parts of a message


class Text(Struct, frozen=True, tag=True):
    text: str
    cache: CacheMark | None = None
    signature: Signature | None = None
    citations: tuple[Citation, ...] = ()


class Refusal(Struct, frozen=True, tag=True):
    """The model's words for not answering."""

    text: str


class Image(Struct, frozen=True, tag=True):
    """Exactly one of `data`, `url` and `file_id` is set."""

    data: str | None = None
    """Base64."""
    url: str | None = None
    file_id: str | None = None
    """The provider's own name for an uploaded file."""
    media_type: str | None = None
    """Set with `data`."""
    detail: str | None = None
    cache: CacheMark | None = None


class File(Struct, frozen=True, tag=True):
    """A document or a recording. Exactly one of `data`, `text`, `url` and `file_id` is set."""

    data: str | None = None
    """Base64."""
    text: str | None = None
    """Of a document in plain text."""
    url: str | None = None
    file_id: str | None = None
    media_type: str | None = None
    """Set with `data` and `text`."""
    name: str | None = None
    context: str | None = None
    """What the model should know of the document, beside its text."""
    is_cited: bool = False
    """The answer is to cite it."""
    cache: CacheMark | None = None


class ToolCall(Struct, frozen=True, tag=True):
    id: str
    name: str
    arguments: str
    """JSON, or what the model took for it; of a custom tool any text."""
    is_custom: bool = False
    """Of a tool whose input is a text."""
    signature: Signature | None = None
    cache: CacheMark | None = None


class ToolResult(Struct, frozen=True, tag=True):
    call_id: str
    parts: "tuple[Text | Image | File, ...]" = ()
    is_error: bool = False
    is_custom: bool = False
    cache: CacheMark | None = None


class Reasoning(Struct, frozen=True, tag=True):
    """The model's thoughts, or a summary of them."""

    text: str = ""
    signature: Signature | None = None
    is_redacted: bool = False
    """The thoughts are inside of the signature, and only the provider can read them."""


Part: TypeAlias = Text | Refusal | Image | File | ToolCall | ToolResult | Reasoning


class Message(Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]
    """Of a `tool` message the results of calls, in the order of the calls where it is known."""
    name: str | None = None


# The request


class Tool(Struct, frozen=True):
    name: str
    description: str | None = None
    schema: Raw = NULL
    """JSON schema of the arguments; none for a custom tool."""
    is_strict: bool | None = None
    is_custom: bool = False
    """Its input is a text and no JSON."""
    format: Raw = NULL
    """Of a custom tool's input: OpenAI's `format`, as its Responses API writes it."""
    cache: CacheMark | None = None


class ToolChoice(Struct, frozen=True):
    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()
    """The tools that the model may choose from; empty is all."""


class ResponseFormat(Struct, frozen=True):
    kind: Literal["text", "json_object", "json_schema"]
    schema: Raw = NULL
    name: str | None = None
    description: str | None = None
    is_strict: bool | None = None


class Thinking(Struct, frozen=True):
    """How much the model is to think before it answers, and what of it the client sees."""

    is_on: bool | None = None
    """None leaves it to the effort, and that to the provider."""
    effort: Effort | None = None
    token_count: int | None = None
    """Of thoughts, at most."""
    is_shown: bool | None = None
    summary: str | None = None
    """`auto`, `concise` or `detailed`, where the provider has more than one."""
    is_adaptive: bool = False
    """The client asked for thinking whose length the model chooses."""


class ChatRequest(Struct, frozen=True, kw_only=True):
    model: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    is_parallel: bool | None = None
    """Whether one answer may call several tools."""
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    """Of each choice, its thoughts included."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    thinking: Thinking | None = None
    is_streamed: bool = False
    wants_usage: bool = False
    """The client wants a stream to end with its usage."""
    choice_count: int = 1
    top_logprob_count: int | None = None
    """Alternatives told for each token, 0 for none but the token itself; None tells nothing."""
    user: str | None = None
    """The client's own name for who asks."""
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    cache_key: str | None = None
    """Requests with the same key are likely to begin alike."""
    cache: CacheMark | None = None
    """Let the provider keep as much of the prompt as it can."""
    extra: dict[str, Raw] = {}
    """The fields of the client's own wire that are none of these."""


# The answer


class Usage(Struct, frozen=True):
    """Tokens of one call; every token is in exactly one of prompt and completion."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    """Part of prompt_tokens: read from the provider's cache."""
    reasoning_tokens: Tokens = 0
    """Part of completion_tokens."""
    cache_write_tokens: Tokens = 0
    """Part of prompt_tokens: written to the provider's cache."""
    cache_write_hour_tokens: Tokens = 0
    """Part of cache_write_tokens: to be kept for an hour or longer, which costs more."""
    prompt_audio_tokens: Tokens = 0
    completion_audio_tokens: Tokens = 0
    cost: Decimal | None = None
    """USD, as the provider itself says; None where it does not."""


class Choice(Struct, frozen=True):
    index: int
    parts: tuple[Part, ...]
    finish: Finish | None
    stop_sequence: str | None = None
    """The client's own stop text that was met."""
    logprobs: Raw = NULL
    """In the shape of OpenAI's chat completions."""


class ChatAnswer(Struct, frozen=True):
    id: str
    model: str
    created_s: int
    """Unix time."""
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    service_tier: str | None = None
    fingerprint: str | None = None

    @property
    def first(self) -> Choice:
        """The only choice for wires that have but one; an empty one where there is none."""
        return self.choices[0] if self.choices else Choice(0, (), None)


class Stamp(Struct, frozen=True):
    """What an answer is given where its provider leaves it out."""

    id: str
    """Another one for each call to a provider: names that are missing are made from it."""
    at_s: int
    """Unix time."""
    model: str = ""
    """As the provider was asked for it."""
