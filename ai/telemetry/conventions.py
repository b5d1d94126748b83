"""The names that OpenTelemetry's conventions for generative AI give to what a call is and does.

A call is a SERVER span, and each request to a provider a CLIENT span below it. Texts of requests
and answers are in none.
https://github.com/open-telemetry/semantic-conventions-genai
"""

from functools import lru_cache
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.errors import UpstreamRefusedError
from butterbase.ai.routing.resolution import Provider, Target
from butterbase.ai.wire.decoding import try_decode
from butterbase.ai.wire.form import NULL, Usage
from butterbase.ai.wire.protocols import Kind
from butterbase.projections.usage import AiCall
from butterbase.sql.errors import ButterbaseError

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
Attributes: TypeAlias = dict[str, Value]

DURATION_BOUNDS_S: Final = tuple(0.01 * 2**n for n in range(14))
FIRST_TOKEN_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
OUTPUT_TOKEN_BOUNDS_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5),
)
TOKEN_BOUNDS: Final = tuple(4**n for n in range(14))

_PROVIDERS: Final = {
    Kind.OPENAI: "openai",
    Kind.ANTHROPIC: "anthropic",
    Kind.GEMINI: "gcp.gemini",
    Kind.OPENROUTER: "openrouter",
    Kind.OLLAMA: "ollama",
}
_PROVIDER_HOSTS: Final = (
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("amazonaws.com", "aws.bedrock"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("cohere.ai", "cohere"),
    ("cohere.com", "cohere"),
    ("deepseek.com", "deepseek"),
    ("groq.com", "groq"),
    ("mistral.ai", "mistral_ai"),
    ("moonshot.ai", "moonshot_ai"),
    ("perplexity.ai", "perplexity"),
    ("x.ai", "x_ai"),
)

_FLOAT: msgspec.json.Decoder[float] = msgspec.json.Decoder(float)
# OTLP's integers have 64 bits; one that has more would lose the whole batch of spans.
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(
    Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
)
_SAMPLING: Final = frozenset(
    {"temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"}
)
_TEXT_LENGTH_MAX = 200


def operation(endpoint: Endpoint) -> Literal["chat", "embeddings"]:
    return "embeddings" if endpoint is Endpoint.EMBEDDINGS else "chat"


def provider_name(provider: Provider) -> str:
    """A well-known name where there is one, else the app's own."""
    if known := _PROVIDERS.get(provider.kind):
        return known
    host, _ = server(provider.base_url)
    for domain, name in _PROVIDER_HOSTS:
        if host == domain or host.endswith(f".{domain}"):
            return name
    return provider.name


@lru_cache(1000)
def server(base_url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def attempt_attributes(target: Target, asked: Asked) -> Attributes:
    """Of a request to a provider that begins."""
    host, port = server(target.provider.base_url)
    found: Attributes = {
        "gen_ai.operation.name": operation(asked.endpoint),
        "gen_ai.provider.name": provider_name(target.provider),
        "gen_ai.request.model": target.model,
        "server.address": host,
        "server.port": port,
    }
    if asked.is_streamed:
        found["gen_ai.request.stream"] = True
    if (limit := asked.passing.token_count or asked.limit) is not None and limit < 2**63:
        found["gen_ai.request.max_tokens"] = limit
    if asked.passing.choice_count != 1:
        found["gen_ai.request.choice.count"] = asked.passing.choice_count
    for field, raw in asked.passing.fields.items():
        if field in _SAMPLING and (number := try_decode(_FLOAT, raw)) is not None:
            found[f"gen_ai.request.{field}"] = number
    if (seed := try_decode(_INTEGER, asked.passing.fields.get("seed", NULL))) is not None:
        found["gen_ai.request.seed"] = seed
    return found


def answer_attributes(model: str | None, finish: str | None) -> Attributes:
    """Of what an answer tells of itself: the words are the provider's."""
    found: Attributes = {}
    if model := _printable(model or ""):
        found["gen_ai.response.model"] = model
    if finish := _printable(finish or ""):
        found["gen_ai.response.finish_reasons"] = (finish,)
    return found


def usage_attributes(usage: Usage) -> Attributes:
    """Tokens, as the provider told them."""
    found: Attributes = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    parts = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "gen_ai.usage.audio.input_tokens": usage.prompt_audio_tokens,
        "gen_ai.usage.audio.output_tokens": usage.completion_audio_tokens,
    }
    return found | {name: count for name, count in parts.items() if count}


def call_attributes(event: AiCall) -> Attributes:
    """Of the whole call, once it has ended."""
    found: Attributes = {
        "butterbase.status": event.status,
        "butterbase.attempts": event.attempts,
        "butterbase.cache": event.cache,
        "butterbase.cost_usd": event.cost_nanos / 10**9,
    }
    if event.requested_model:
        found["butterbase.requested_model"] = event.requested_model
    if event.http_status is not None:
        found["http.response.status_code"] = event.http_status
    if event.budget_action is not None:
        found["butterbase.budget_action"] = event.budget_action
    if event.step != 1:
        found["butterbase.step"] = event.step
    if event.key_id is not None:
        found["butterbase.key.id"] = str(event.key_id)
    return found | {f"butterbase.guard.{name}": told for name, told in event.guards.items()}


def tool_name(name: str) -> str:
    return _printable(name)


def tool_attributes(name: str, *, kind: str, call_id: str) -> Attributes:
    """Of a tool that the gateway runs; neither its arguments nor its result."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": _printable(name),
        "gen_ai.tool.call.id": _printable(call_id),
        "gen_ai.tool.type": "datastore" if kind == "table" else "extension",
    }


def error_type(error: ButterbaseError | None, status: str = "ok") -> str | None:
    """What a provider answers is its status, anything else our code; `cancelled`: the client left,
    or the server stopped. None: it went well."""
    if status == "cancelled":
        return "cancelled"
    if isinstance(error, UpstreamRefusedError):
        return str(error.error.status)
    return None if error is None else error.code


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text[:_TEXT_LENGTH_MAX]))
