"""What a wire can do, so that a client's and a provider's are chosen by name alone."""

import enum
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from butterbase.ai.wire.events import (
    StreamEvent,
    WireError,
)
from butterbase.ai.wire.form import (
    ChatAnswer,
    ChatRequest,
    Stamp,
    Usage,
)


class WireName(enum.StrEnum):
    CHAT = "openai_chat"
    RESPONSES = "openai_responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class Kind(enum.StrEnum):
    """What a provider is: its wires, and its ways of speaking them."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    OPENROUTER = "openrouter"
    OLLAMA = "ollama"
    COMPATIBLE = "openai_compatible"


class Target(Struct, frozen=True):
    """Of a provider and its model what an encoder must know."""

    kind: Kind
    model: str
    """The provider's own name of the model."""
    max_tokens: int | None = None
    """What a request gets that names no limit; None leaves it to the provider, or to the wire
    where that demands one."""


class UpstreamRequest(Struct, frozen=True):
    path: str
    """Below the base URL, without a slash at its start; may have a query."""
    body: bytes
    headers: dict[str, str] = {}
    """Beside those of the key."""


class EncodedError(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class StreamDecoder(Protocol):
    """A provider's stream of one answer, read as it comes."""

    is_over: bool
    """The provider has said that nothing more comes."""

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that these bytes complete. Raises UpstreamInvalidError."""
        ...

    def close(self) -> list[StreamEvent]:
        """What the last bytes hold. Raises UpstreamCutError when the answer is not whole."""
        ...


class StreamEncoder(Protocol):
    """The same answer for a client. A `Failed` ends it; nothing follows, and no `close`."""

    def encode(self, event: StreamEvent) -> bytes:
        """Nothing before the model says something: until then another one may be asked."""
        ...

    def close(self) -> bytes:
        """What tells the client that the answer is whole."""
        ...


class ClientWire(Protocol):
    name: WireName

    def decode_request(self, body: bytes) -> ChatRequest:
        """Raises AiRequestError."""
        ...

    def encode_answer(self, answer: ChatAnswer, request: ChatRequest) -> bytes: ...

    def stream_encoder(self, request: ChatRequest) -> StreamEncoder: ...

    def encode_error(self, error: WireError) -> EncodedError: ...


class TargetWire(Protocol):
    name: WireName

    def encode_request(self, request: ChatRequest, target: Target) -> UpstreamRequest:
        """Raises WireUnsupportedError."""
        ...

    def decode_answer(self, body: bytes, stamp: Stamp) -> ChatAnswer:
        """Raises UpstreamInvalidError."""
        ...

    def stream_decoder(self, stamp: Stamp) -> StreamDecoder: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> WireError: ...

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Those that carry the key."""
        ...


class AnswerFacts(Struct, frozen=True):
    """What is read of an answer that passes as it is."""

    usage: Usage | None
    """None when it tells none, or not in numbers."""
    finish: str | None
    """In the words of its wire."""
    model: str | None
    error: WireError | None = None
    """Some answer 200, and then that it failed."""


class Watcher(Protocol):
    """Reads a stream that passes as it is. What ends it is kept back, for the caller to send."""

    usage: Usage | None
    finish: str | None
    model: str | None
    has_begun: bool
    """An event of the answer came."""
    is_done: bool
    error: WireError | None
    """What the provider says went wrong; its event and what follows are not passed on."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes for the client. Raises EventTooLongError."""
        ...

    def close(self) -> bytes:
        """The provider sends no more. Raises UpstreamCutError when its answer is not whole."""
        ...

    @property
    def ending(self) -> bytes:
        """The bytes that tell the client that the answer is whole."""
        ...
