"""A client's request: what of it is read and checked before it goes anywhere."""

from enum import StrEnum
from functools import cached_property, partial
from typing import Final

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import AiRequestError, TokenLimitError, WireUnsupportedError
from butterbase.ai.http.body import decode_json
from butterbase.ai.routing.config import MODEL_LENGTH_MAX
from butterbase.ai.wire import embeddings
from butterbase.ai.wire.decoding import ALL_FIELDS, refusal, try_decode
from butterbase.ai.wire.form import NULL, ChatRequest
from butterbase.ai.wire.passing import REACHING_FIELDS, UNSET, PassingRequest, open_request
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.wires import CLIENT_WIRES


class Endpoint(StrEnum):
    """What a client asks for, by its path."""

    CHAT = "chat/completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"

    @property
    def wire(self) -> WireName:
        """Of its errors too."""
        return _WIRES[self]


_WIRES: Final = {
    Endpoint.CHAT: WireName.CHAT,
    Endpoint.RESPONSES: WireName.RESPONSES,
    Endpoint.MESSAGES: WireName.ANTHROPIC,
    Endpoint.EMBEDDINGS: WireName.CHAT,
}


class _EmbeddingsFields(Struct, frozen=True):
    input: str | list[Raw]
    model: str | None = None


_EMBEDDINGS_FIELDS = msgspec.json.Decoder(_EmbeddingsFields)
_MODELS = msgspec.json.Decoder(list[str])


class Asked:
    """A request as it was read."""

    def __init__(self, endpoint: Endpoint, body: bytes, *, beta: str = "") -> None:
        """Raises AiRequestError."""
        _check_text(body)
        self.endpoint = endpoint
        self.body = body
        self.beta = beta
        """Names of Anthropic's features that are not for everyone yet, as a header has them."""
        self.passing = _open(endpoint, body)
        self.is_streamed = self.passing.is_streamed
        self.byte_count = len(body)
        """Of what goes to a provider, which a token is at least one of."""
        self.is_rewritten = False
        """`form` is not what the client sent."""
        self.limit: int | None = None
        """Tokens that each choice may have, where the client names no limit."""
        if endpoint is Endpoint.RESPONSES:
            _check_response(self.passing.fields)

    @cached_property
    def form(self) -> ChatRequest:
        """Raises AiRequestError, WireUnsupportedError."""
        return CLIENT_WIRES[self.endpoint.wire].decode_request(self.body)

    @cached_property
    def embedding(self) -> embeddings.EmbeddingRequest:
        """Raises AiRequestError."""
        return embeddings.decode_request(self.body)

    @property
    def model(self) -> str | None:
        return self.passing.model

    def rewrite(self, form: ChatRequest, *, added_bytes: int = 0) -> None:
        """Another request in the place of the client's, and by how much it may be longer."""
        self.__dict__["form"] = form
        self.is_rewritten = True
        self.byte_count += added_bytes

    def replace_body(self, body: bytes) -> None:
        """Another request for embeddings in the place of the client's. Raises AiRequestError."""
        self.body = body
        self.passing = _open(self.endpoint, body)
        self.byte_count = max(self.byte_count, len(body))

    @cached_property
    def other_models(self) -> tuple[str, ...]:
        """Routers such as OpenRouter and LiteLLM also take models to fall back to.

        Raises AiRequestError.
        """
        others: list[str] = []
        for name in ("models", "fallbacks"):
            if name in self.passing.fields:
                refuse = partial(AiRequestError, param=name, hint="it must be a list of models")
                found: list[str] = decode_json(_MODELS, self.passing.fields[name], refuse)
                others += found
        return tuple(others)

    def limit_tokens(self, count_max: int | None, default: int | None) -> None:
        """Hold all choices together to `count_max`; where the request names no limit, each gets
        its part of that, or the default.

        Raises TokenLimitError.
        """
        asked = self.passing.token_count
        choice_count = self.passing.choice_count
        if asked is None:
            if count_max is not None:
                self.limit = max(1, count_max // choice_count)
            else:
                self.limit = default
        if count_max is not None and (asked or 1) * choice_count > count_max:
            raise TokenLimitError(
                f"the app allows {count_max} tokens for all choices of a request",
                param=self._limit_field,
                hint="ask for fewer, or raise maxTokensPerRequest with PUT ai/config",
            )

    @property
    def _limit_field(self) -> str:
        names = ("max_completion_tokens", "max_output_tokens")
        return next((name for name in names if name in self.passing.fields), "max_tokens")


def _open(endpoint: Endpoint, body: bytes) -> PassingRequest:
    if endpoint is not Endpoint.EMBEDDINGS:
        return open_request(endpoint.wire, body)
    fields = decode_json(ALL_FIELDS, body, refusal)
    model = decode_json(_EMBEDDINGS_FIELDS, body, refusal).model
    return PassingRequest(WireName.CHAT, fields, model)


def _check_text(body: bytes) -> None:
    """Of values that pass as they are nobody else reads the text. Raises AiRequestError."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise AiRequestError(
            f"the body cannot be read: it is not UTF-8 (byte {error.start})",
            hint="JSON is text in UTF-8",
        ) from None


def check_model(model: str) -> str:
    """It becomes part of events and of an index: no control characters, no surprises in length.

    Raises AiRequestError.
    """
    if len(model) > MODEL_LENGTH_MAX or not model.isprintable():
        raise AiRequestError("not the name of a model", param="model")
    return model


def _check_response(fields: dict[str, Raw]) -> None:
    """Raises WireUnsupportedError."""
    if bytes(fields.get("background", NULL)) not in {b"null", b"false"}:
        raise WireUnsupportedError(
            "answers in the background are not there: nobody would hear what they cost",
            param="background",
        )


# What a body only refers to


class _Part(Struct, frozen=True):
    type: str = ""
    content: Raw = NULL
    """Of a tool's result."""
    output: Raw = NULL


class _Holder(Struct, frozen=True):
    """A message, or an item of OpenAI's Responses."""

    type: str = ""
    content: Raw = NULL
    output: Raw = NULL


_HOLDERS = msgspec.json.Decoder(list[_Holder])
_PARTS = msgspec.json.Decoder(list[_Part])
_IMAGES = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_FILES = frozenset({"file", "input_file", "document", "input_audio", "video_url", "audio_url"})
# Without one of these there is none; `\u` may spell any.
_REFERRING = (b"image", b"file", b"document", b"audio", b"video", b"screenshot", b"\\u")
_ELSEWHERE = ("previous_response_id", "conversation", "prompt", "container")
_GIVEN_TOOLS = frozenset({None, "function", "custom"})
_CLIENT_TOOLS = ("apply_patch", "bash_", "computer", "local_shell", "memory_", "text_editor_")
"""Begins of types of tools that the model was trained with, and the client runs."""


class References(Struct, frozen=True):
    """What a body holds whose tokens are not bounded by its bytes."""

    images: int = 0
    files: int = 0
    tools: int = 0
    """That its provider runs: what they find is read as part of the prompt, and again in each of
    the rounds that they take, also beyond the model's context."""
    described_tools: int = 0
    """That the provider describes to the model in words of its own."""


_NO_REFERENCES = References()


def count_references(asked: Asked) -> References:
    fields = asked.passing.fields
    if asked.endpoint is Endpoint.EMBEDDINGS:
        return _NO_REFERENCES
    # What the provider has stored may be as long as its model can read.
    stored = sum(bytes(fields.get(name, NULL)) != b"null" for name in _ELSEWHERE)
    tools, described = _count_tools(asked)
    if not stored and not any(word in asked.body for word in _REFERRING):
        return References(0, 0, tools, described) if tools or described else _NO_REFERENCES
    name = "input" if asked.endpoint is Endpoint.RESPONSES else "messages"
    images, files = 0, stored
    for holder in try_decode(_HOLDERS, fields.get(name, NULL)) or ():
        found = _count(holder.content) + _count(holder.output)
        found.append(holder.type)
        images += sum(kind in _IMAGES for kind in found)
        files += sum(kind in _FILES for kind in found)
    return References(images, files, tools, described)


class _Tool(Struct, frozen=True):
    type: str | None = None


_TOOLS = msgspec.json.Decoder(list[_Tool])


def _count_tools(asked: Asked) -> tuple[int, int]:
    """Those that the provider runs, and those that it describes."""
    fields = asked.passing.fields
    reaching = sum(bytes(fields.get(name, NULL)) not in UNSET for name in REACHING_FIELDS)
    tools = try_decode(_TOOLS, fields.get("tools", NULL)) or []
    named = [tool.type for tool in tools if tool.type not in _GIVEN_TOOLS]
    clients = sum(kind is not None and kind.startswith(_CLIENT_TOOLS) for kind in named)
    # However many functions there are, how to call them is said once.
    return reaching + len(named) - clients, clients + bool(tools)


def _count(content: Raw, depth: int = 0) -> list[str]:
    """The types of the parts, and of the parts of these."""
    if bytes(content)[:1] != b"[" or depth > 3:
        return []
    kinds = []
    for part in try_decode(_PARTS, content) or ():
        kinds.append(part.type)
        kinds += _count(part.content, depth + 1) + _count(part.output, depth + 1)
    return kinds
