"""What stands beside a call on its way: the cache before it is admitted, guards and prompts around
its text, and who is told of it. Each is nothing by default.

The gateway asks them in this order: `Prompts.fill`, `Guards.on_request`, `Cache.find`; then, of an
answer, `Guards.on_answer` or a stream's `Filter`, and `Lookup.keep`. Rules are those of the route
where it has some, else the app's, as they were set with `ai/config`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from uuid import UUID

from msgspec import Raw, Struct

from butterbase.ai.contents.rules import ContentRules
from butterbase.ai.telemetry.protocols import Observer, Tracer
from butterbase.ai.wire.events import StreamEvent
from butterbase.ai.wire.form import NULL, ChatAnswer, ChatRequest, Usage

if TYPE_CHECKING:  # they import this
    from butterbase.ai.calls.asked import Asked
    from butterbase.ai.calls.call import Call

CacheState: TypeAlias = Literal["hit", "semantic", "miss", "bypass", "off"]


class Asking(Struct, frozen=True):
    """Who asks for what."""

    app_id: str
    role: str
    user_id: UUID | None
    key_id: UUID | None
    request_id: str
    endpoint: str
    """`chat/completions`, `responses`, `messages` or `embeddings`."""
    model: str
    """As asked for, or the default."""
    targets: tuple[tuple[str, str], ...]
    """Names of providers and of their models that may answer, in the order of the route."""
    body: bytes
    """As the client sent it, after `Prompts.fill`."""
    cache_rules: Raw = NULL
    guard_rules: Raw = NULL
    cache_control: str = ""
    """The client's header."""
    beta: str = ""
    """The client's `anthropic-beta`, which changes what its request means."""


class Kept(Struct, frozen=True):
    """An answer that is given again, whole or as a stream, in any client's wire."""

    answer: ChatAnswer
    provider: str
    model: str
    """The target's."""
    usage: Usage
    cost_nanos: int
    """What it did cost, and does not now."""
    state: Literal["hit", "semantic"] = "hit"
    similarity: float | None = None


class Fresh(Struct, frozen=True):
    """An answer that may be kept."""

    answer: ChatAnswer
    provider: str
    model: str
    usage: Usage
    cost_nanos: int
    latency_s: float


class Lookup(Protocol):
    """One call's question to the cache; exactly one of `keep` and `drop` follows, unless it found
    something."""

    state: CacheState
    kept: Kept | None

    async def keep(self, fresh: Fresh) -> None:
        """Called when the call is recorded and the client has its answer. Must not raise."""
        ...

    def drop(self, *, has_left: bool = False) -> None:
        """There is no answer to keep; whoever waits for it asks for an own one. Where only the
        client has left, one of those does, and the others go on waiting."""
        ...


class Cache(Protocol):
    def check(self, rules: Raw) -> None:
        """Raises AiConfigError."""
        ...

    async def find(self, asking: Asking, request: ChatRequest) -> Lookup:
        """May wait for the same question's answer, which is under way. Must not raise."""
        ...


class Filter(Protocol):
    """Between a provider's stream and the client: it may hold back, change and add events."""

    def feed(self, event: StreamEvent) -> list[StreamEvent]: ...

    def close(self) -> list[StreamEvent]: ...


class Guarded(Struct, frozen=True):
    request: ChatRequest | None = None
    """In place of the client's; None where it goes on as it is."""
    verdicts: Mapping[str, str] = {}
    """By guard; they stand in the event."""
    memory: Any = None
    """What the guard wants back with the answer; None: it does not want to see the answer."""
    added_bytes: int = 0
    """By which `request` may be longer than the client's."""
    body: bytes | None = None
    """Of `on_embedding`, in place of the client's."""


class Guards(Protocol):
    def check(self, rules: Raw) -> None:
        """Raises AiConfigError."""
        ...

    async def on_request(self, asking: Asking, request: ChatRequest) -> Guarded:
        """Raises AiError where the call is refused; a `verdicts` on the error is recorded."""
        ...

    async def on_embedding(self, asking: Asking) -> Guarded:
        """As `on_request`. What an index of the app's embeds is not asked for."""
        ...

    def on_answer(self, guarded: Guarded, answer: ChatAnswer) -> ChatAnswer: ...

    def filter(self, guarded: Guarded) -> Filter: ...


class Prompts(Protocol):
    async def fill(self, app_id: str, endpoint: str, body: bytes) -> bytes:
        """The body with its `prompt` in place of the template that it names. Raises AiError."""
        ...


class Draft(Protocol):
    """Of a call whose texts are to be kept."""

    def end(self, parts: Sequence[bytes] | None) -> None:
        """Once the call has ended; `parts` are of an answer that is whole. Must not raise."""
        ...


class Contents(Protocol):
    def begin(self, call: "Call", asked: "Asked", rules: ContentRules) -> Draft: ...


class NoLookup:
    state: CacheState = "off"
    kept: Kept | None = None

    async def keep(self, fresh: Fresh) -> None:
        pass

    def drop(self, *, has_left: bool = False) -> None:
        pass


NO_LOOKUP = NoLookup()


class Seams(Struct, frozen=True):
    """What is there; None is nothing, and costs nothing."""

    cache: Cache | None = None
    guards: Guards | None = None
    prompts: Prompts | None = None
    contents: Contents | None = None
    tracer: Tracer | None = None
    observers: tuple[Observer, ...] = ()


NO_SEAMS = Seams()
