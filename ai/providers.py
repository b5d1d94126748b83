"""OpenAI's wire form: what of a request is checked and changed, and what an answer tells.

Fields that are not named here pass untouched, in both directions.
https://platform.openai.com/docs/api-reference/chat
https://platform.openai.com/docs/api-reference/embeddings
"""

import enum
import re
from functools import partial
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.body import decode_json
from butterbase.ai.errors import (
    AiConfigError,
    AiRequestError,
    ModelDeniedError,
    ModelMissingError,
    TokenLimitError,
    UpstreamCutError,
    UpstreamInvalidError,
    UpstreamRefusedError,
)
from butterbase.ai.sse import Event, EventStreamDecoder
from butterbase.projections.usage import Tokens

MODEL_LENGTH_MAX = 200
BASE_URL_LENGTH_MAX = 500
_MESSAGE_LENGTH_MAX = 1000

DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


class Endpoint(enum.StrEnum):
    """Path below the base URL."""

    CHAT = "chat/completions"
    EMBEDDINGS = "embeddings"


class Route(Struct, frozen=True):
    """Where an app's calls go, and within which limits."""

    base_url: str
    api_key: str | None
    default_model: str | None
    token_count_max: int | None
    """Of what one request may have generated; None is no limit."""
    allowed_models: frozenset[str] | None
    """None allows all."""
    is_operators: bool
    """The base URL is the operator's own, and so may be a private address."""

    @property
    def provider(self) -> str:
        return urlsplit(self.base_url).hostname or ""


def check_base_url(text: str) -> str:
    """The URL without a slash at its end. Raises AiConfigError."""
    try:
        url = urlsplit(text)
        is_sound = url.scheme in {"http", "https"} and url.hostname and (url.port or 1)
    except ValueError:
        is_sound = False
    if not is_sound or not text.isascii() or not text.isprintable() or re.search(r"[\s?#@]", text):
        raise AiConfigError(
            "the base URL must be http:// or https:// with a host, and no user, query or fragment",
            param="baseUrl",
        )
    if len(text) > BASE_URL_LENGTH_MAX:
        raise AiConfigError(f"longer than {BASE_URL_LENGTH_MAX} characters", param="baseUrl")
    return text.rstrip("/")


# The request

_Count = Annotated[int, Meta(ge=1)]


class _ChatFields(Struct, frozen=True):
    messages: Annotated[list[Raw], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Raw] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None


class _EmbeddingsFields(Struct, frozen=True):
    input: str | list[Raw]
    model: str | None = None


_ALL_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_CHAT_FIELDS = msgspec.json.Decoder(_ChatFields)
_EMBEDDINGS_FIELDS = msgspec.json.Decoder(_EmbeddingsFields)
_BOOLEAN = msgspec.json.Decoder(bool | None)
_MODELS = msgspec.json.Decoder(list[str])
_OPTIONS = msgspec.json.Decoder(dict[str, Raw] | None)


class AiRequest(Struct, frozen=True):
    """A request as far as we read it; `fields` has all of it."""

    endpoint: Endpoint
    fields: dict[str, Raw]
    model: str | None
    is_streamed: bool = False
    wants_usage: bool = False
    """The client itself asked for the chunk that tells the usage of a stream."""
    token_count: int | None = None
    """Tokens that it lets each choice have."""
    choice_count: int = 1


def decode_request(endpoint: Endpoint, body: bytes) -> AiRequest:
    """Raises AiRequestError."""
    fields = decode_json(_ALL_FIELDS, body, _refusal)
    if endpoint is Endpoint.EMBEDDINGS:
        model = decode_json(_EMBEDDINGS_FIELDS, body, _refusal).model
        return AiRequest(endpoint, fields, model)
    chat = decode_json(_CHAT_FIELDS, body, _refusal)
    asked = (chat.stream_options or {}).get("include_usage", Raw(b"null"))
    include_usage = decode_json(_BOOLEAN, asked, _refusal)
    limits = [n for n in (chat.max_tokens, chat.max_completion_tokens) if n is not None]
    return AiRequest(
        endpoint,
        fields,
        chat.model,
        is_streamed=bool(chat.stream),
        wants_usage=bool(include_usage),
        token_count=max(limits, default=None),
        choice_count=chat.n or 1,
    )


def _refusal(reason: str) -> AiRequestError:
    at = re.search(r"`\$\.(\w+)", reason) or re.search(r"required field `(\w+)`", reason)
    return AiRequestError(f"the body cannot be read: {reason}", param=at and at[1])


def choose_model(request: AiRequest, route: Route) -> str:
    """The model asked for, or the default. Raises ModelMissingError, AiRequestError."""
    model = request.model or route.default_model
    if not model:
        raise ModelMissingError(
            param="model", hint="name a model, or set defaultModel with PUT ai/config"
        )
    # It becomes part of events and of an index: no control characters, no surprises in length.
    if len(model) > MODEL_LENGTH_MAX or not model.isprintable():
        raise AiRequestError("not the name of a model", param="model")
    return model


def render_request(request: AiRequest, model: str, route: Route) -> bytes:
    """The body for the provider. Raises ModelDeniedError, TokenLimitError.

    It is always rendered anew, so that a field written twice is sent as it was checked.
    """
    fields = dict(request.fields)
    _check_models(fields, model, route)
    fields["model"] = _raw(model)
    if request.endpoint is Endpoint.CHAT:
        _limit_tokens(fields, request, route)
    if request.is_streamed and not request.wants_usage:
        options = _OPTIONS.decode(fields.get("stream_options", b"null"))
        fields["stream_options"] = _raw({**(options or {}), "include_usage": True})
    return msgspec.json.encode(fields)


def _check_models(fields: dict[str, Raw], model: str, route: Route) -> None:
    if route.allowed_models is None:
        return
    models = [model]
    # Routers such as OpenRouter and LiteLLM also take models to fall back to.
    for name in ("models", "fallbacks"):
        if name in fields:
            refusal = partial(AiRequestError, param=name, hint="it must be a list of models")
            others = decode_json(_MODELS, fields[name], refusal)
            models += others
    for name in models:
        if name not in route.allowed_models:
            raise ModelDeniedError(
                f"the app does not allow the model {name[:MODEL_LENGTH_MAX]!r}",
                hint="allowedModels of ai/config lists those it does",
            )


def _limit_tokens(fields: dict[str, Raw], request: AiRequest, route: Route) -> None:
    """Hold all choices together to the app's limit, also where the request names none."""
    if route.token_count_max is None:
        return
    if request.token_count is None:
        # OpenAI's newer models refuse the name that every other server knows.
        is_openais = route.provider.endswith((".openai.com", ".openai.azure.com"))
        name = "max_completion_tokens" if is_openais else "max_tokens"
        fields[name] = _raw(max(1, route.token_count_max // request.choice_count))
    if (request.token_count or 1) * request.choice_count > route.token_count_max:
        raise TokenLimitError(
            f"the app allows {route.token_count_max} tokens for all choices of a request",
            param="max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens",
            hint="ask for fewer, or raise maxTokensPerRequest with PUT ai/config",
        )


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


# The answer


class Usage(Struct, frozen=True):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0


class _PromptDetails(Struct, frozen=True):
    cached_tokens: Tokens | None = None


class _CompletionDetails(Struct, frozen=True):
    reasoning_tokens: Tokens | None = None


class _WireUsage(Struct, frozen=True):
    prompt_tokens: Tokens
    completion_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Choice(Struct, frozen=True):
    finish_reason: str | None = None


class _Answer(Struct, frozen=True):
    """Of an answer or a chunk, what we read; each part is judged by itself."""

    usage: Raw = Raw(b"null")
    choices: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


class _Listed(Struct, frozen=True):
    id: str


class _Error(Struct, frozen=True):
    message: str


class _ErrorBody(Struct, frozen=True):
    error: _Error | str | None = None
    message: str | None = None
    detail: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_USAGE = msgspec.json.Decoder(_WireUsage | None)
_CHOICES = msgspec.json.Decoder(list[_Choice] | None)
_ERROR = msgspec.json.Decoder(_ErrorBody)
_LISTING = msgspec.json.Decoder(list[Raw])
_LISTED = msgspec.json.Decoder(_Listed)


def is_json_object(body: bytes) -> bool:
    return _decode(_ANSWER, body) is not None


def read_usage(body: bytes) -> Usage | None:
    """The usage that a whole answer reports; None when it does not, or not in numbers."""
    answer = _decode(_ANSWER, body)
    return None if answer is None else _usage(answer)


def _usage(answer: _Answer) -> Usage | None:
    wire = _decode(_USAGE, answer.usage)
    if wire is None:
        return None
    completion_tokens = wire.completion_tokens or 0
    return Usage(
        prompt_tokens=wire.prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=wire.total_tokens or wire.prompt_tokens + completion_tokens,
        cached_tokens=(wire.prompt_tokens_details or _PromptDetails()).cached_tokens or 0,
        reasoning_tokens=(wire.completion_tokens_details or _CompletionDetails()).reasoning_tokens
        or 0,
    )


def _decode(decoder: msgspec.json.Decoder[T], body: bytes | Raw) -> T | None:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def allowed_listing(body: bytes, route: Route) -> bytes:
    """A list of models without those that the app does not allow. Raises UpstreamInvalidError."""
    listing = _decode(_ALL_FIELDS, body) or {}
    models = _decode(_LISTING, listing.get("data", b""))
    if models is None:
        raise UpstreamInvalidError
    if route.allowed_models is None:
        return body
    allowed = route.allowed_models
    kept = [raw for raw in models if (model := _decode(_LISTED, raw)) and model.id in allowed]
    return msgspec.json.encode({**listing, "data": kept})


def refusal(status: int, body: bytes, headers: dict[str, str]) -> UpstreamRefusedError:
    """What a provider's answer of this status, 300 or more, means to the client."""
    if status == 401:
        # It is our key that was refused, and its text may quote a part of it.
        return UpstreamRefusedError(
            "the AI provider refused the key of this server or app",
            status=status,
            hint="set byokKey with PUT ai/config, or BUTTERBASE_AI_API_KEY",
        )
    if status < 400:
        return UpstreamRefusedError(
            f"the AI provider redirects (status {status})", status=502, hint="check the base URL"
        )
    wire = _decode(_ERROR, body) or _ErrorBody()
    if isinstance(wire.error, _Error):
        return UpstreamRefusedError(wire.error.message, status=status, body=body, headers=headers)
    text = wire.error or wire.message or wire.detail or f"the AI provider answered {status}"
    return UpstreamRefusedError(text[:_MESSAGE_LENGTH_MAX], status=status, headers=headers)


class StreamReader:
    """Reads a streamed chat answer while it passes: usage, errors and where it ends.

    `feed` answers the bytes for the client. Kept back are `[DONE]`, so that the caller can end
    the answer, an error event, which becomes `error`, and the usage that only we asked for.
    """

    def __init__(self, *, wants_usage: bool) -> None:
        self._decoder = EventStreamDecoder()
        self._wants_usage = wants_usage
        self._has_finish_reason = False
        self.usage: Usage | None = None
        self.has_begun = False
        """An event with data came."""
        self.is_done = False
        self.error: UpstreamRefusedError | None = None
        """What the provider says went wrong; what comes after it is not passed on."""

    def feed(self, chunk: bytes) -> bytes:
        """Raises EventTooLongError."""
        return b"".join([e.raw for e in self._decoder.feed(chunk) if self._passes(e)])

    def close(self) -> bytes:
        """The provider sends no more. Raises UpstreamCutError when its answer is not whole."""
        rest = self._decoder.close()
        # Some servers leave out the last blank line; half an event is no event.
        is_whole = rest and rest.data and (rest.data == b"[DONE]" or is_json_object(rest.data))
        part = rest.raw.rstrip() + b"\n\n" if rest and is_whole and self._passes(rest) else b""
        # Some end without [DONE]; a reason to finish and a clean end say as much.
        if not self.is_done and not self._has_finish_reason:
            raise UpstreamCutError
        return part

    def _passes(self, event: Event) -> bool:
        if self.is_done or self.error is not None:
            return False
        if event.data is None:
            return True
        if event.data.strip() == b"[DONE]":
            self.is_done = True
            return False
        self.has_begun = True
        answer = _decode(_ANSWER, event.data)
        if answer is None:
            return True
        if bytes(answer.error) != b"null":
            self.error = refusal(502, event.data, {})
            return False
        choices = _decode(_CHOICES, answer.choices) or []
        self._has_finish_reason |= any(choice.finish_reason for choice in choices)
        usage = _usage(answer)
        self.usage = usage or self.usage
        return usage is None or bool(choices) or self._wants_usage
