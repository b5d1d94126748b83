"""What an app says of its providers and routes with `ai/config`, as it is stored and read back.

A route gives a model's name, or a pattern of names, the targets that serve it. A target is a
provider, and what the model is called there.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from butterbase.ai.errors import AiConfigError
from butterbase.ai.money.prices import PriceUsd
from butterbase.ai.wire.form import NULL
from butterbase.ai.wire.protocols import Kind

MODEL_LENGTH_MAX = 200
BASE_URL_LENGTH_MAX = 500
PROVIDER_COUNT_MAX = 50
ROUTE_COUNT_MAX = 500
TARGET_COUNT_MAX = 20

DEFAULT: Final = "default"
"""As a target's provider: that of `baseUrl`, or where the app has none, the operator's."""

BASE_URLS: Final[Mapping[Kind, str]] = {
    Kind.OPENAI: "https://api.openai.com/v1",
    Kind.ANTHROPIC: "https://api.anthropic.com/v1",
    Kind.GEMINI: "https://generativelanguage.googleapis.com/v1beta",
    Kind.OPENROUTER: "https://openrouter.ai/api/v1",
    Kind.OLLAMA: "http://127.0.0.1:11434/v1",
}
"""Of providers that name none."""

Model: TypeAlias = Annotated[
    str, Meta(pattern=r"\A[^\x00-\x1f\x7f]+\Z", max_length=MODEL_LENGTH_MAX)
]
Name: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}\Z")]
Key: TypeAlias = Annotated[str, Meta(pattern=r"\A[!-~]{8,512}\Z")]
"""Visible ASCII: it goes into a header."""
_HeaderName: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,100}\Z")]
_HeaderValue: TypeAlias = Annotated[str, Meta(pattern=r"\A[ -~]{0,1000}\Z")]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=3600)]

# What the gateway sends itself, and what carries a key: headers are read back, keys are not.
_OWN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "api-key", "authorization", "connection", "content-encoding",
        "content-length", "content-type", "cookie", "expect", "host", "keep-alive",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
        "x-api-key", "x-goog-api-key",
    }
)  # fmt: skip


class ProviderChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A provider as it is set."""

    kind: Kind
    base_url: str | None = None
    api_key: Key | UnsetType | None = UNSET
    """Left out, the one before stays, unless the provider is elsewhere now."""
    headers: Annotated[dict[_HeaderName, _HeaderValue], Meta(max_length=20)] = {}
    """Sent with each request to it; read back, so they are no place for secrets."""


class ProviderShown(Struct, frozen=True, rename="camel"):
    kind: Kind
    base_url: str
    api_key: str | None
    """A hint such as `sk-…abcd`, never the key."""
    headers: dict[str, str]


class Timeouts(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Seconds, of one request to a target; what is left out is the settings'."""

    connect: _Seconds | None = None
    first_token: _Seconds | None = None
    """From a streamed request to the first event of its answer."""
    total: _Seconds | None = None


class TargetRule(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    provider: Name
    model: Model | None = None
    """None: as it was asked for. A `*` stands for what the `*` of the route has matched."""
    weight: Annotated[int, Meta(ge=0, le=1000)] = 1
    """For the strategy `weighted`; with 0 it is called when all others fail."""
    timeouts: Timeouts | None = None
    price: PriceUsd | None = None
    """Goes before all other prices of the model."""


Targets: TypeAlias = Annotated[list[TargetRule], Meta(max_length=TARGET_COUNT_MAX)]
Strategy: TypeAlias = Literal["ordered", "weighted", "latency", "cost"]


class Retries(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Of requests that failed, where another may succeed."""

    count: Annotated[int, Meta(ge=0, le=10)] = 1
    """To the same target, before the next one is called."""
    delay_max: _Seconds = 10.0
    """A provider that asks for a longer wait is not waited for."""


class Fallbacks(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """Targets for what one more request of the same kind would not mend."""

    context_window: Targets = []
    """The conversation is too long for the model."""
    content_policy: Targets = []
    """The provider refuses what it says."""


class Route(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    match: Model
    """A name, or a pattern in which each `*` stands for any text. The first route that matches
    holds."""
    targets: Annotated[list[TargetRule], Meta(min_length=1, max_length=TARGET_COUNT_MAX)]
    strategy: Strategy = "ordered"
    retries: Retries = Retries()
    fallbacks: Fallbacks = Fallbacks()
    cache: Raw = NULL
    """In place of the app's."""
    guards: Raw = NULL

    @property
    def is_pattern(self) -> bool:
        return "*" in self.match


Routes: TypeAlias = Annotated[list[Route], Meta(max_length=ROUTE_COUNT_MAX)]
Providers: TypeAlias = Annotated[dict[Name, ProviderChange], Meta(max_length=PROVIDER_COUNT_MAX)]


def check_base_url(text: str, *, param: str = "baseUrl") -> str:
    """The URL without a slash at its end. Raises AiConfigError."""
    try:
        url = urlsplit(text)
        is_sound = url.scheme in {"http", "https"} and url.hostname and (url.port or 1)
    except ValueError:
        is_sound = False
    if not is_sound or not text.isascii() or not text.isprintable() or re.search(r"[\s?#@]", text):
        raise AiConfigError(
            "the base URL must be http:// or https:// with a host, and no user, query or fragment",
            param=param,
        )
    if len(text) > BASE_URL_LENGTH_MAX:
        raise AiConfigError(f"longer than {BASE_URL_LENGTH_MAX} characters", param=param)
    return text.rstrip("/")


def base_url_of(name: str, provider: ProviderChange) -> str:
    """Raises AiConfigError."""
    param = f"providers.{name}.baseUrl"
    if provider.base_url is not None:
        return check_base_url(provider.base_url, param=param)
    if provider.kind not in BASE_URLS:
        raise AiConfigError("a provider of this kind needs its base URL", param=param)
    return BASE_URLS[provider.kind]


def check_provider(name: str, provider: ProviderChange) -> None:
    """Raises AiConfigError."""
    if name == DEFAULT:
        raise AiConfigError("the provider of baseUrl has this name", param=f"providers.{name}")
    for header in provider.headers:
        if header.lower() in _OWN_HEADERS:
            raise AiConfigError(
                f"{header} cannot be set",
                param=f"providers.{name}.headers",
                hint="a key goes into apiKey",
            )


def check_routes(routes: Sequence[Route], providers: Collection[str]) -> None:
    """Raises AiConfigError, which names the field."""
    known = {DEFAULT, *providers}
    for at, route in enumerate(routes):
        fallbacks = route.fallbacks
        for name, rules in (
            ("targets", route.targets),
            ("fallbacks.contextWindow", fallbacks.context_window),
            ("fallbacks.contentPolicy", fallbacks.content_policy),
        ):
            for number, rule in enumerate(rules):
                _check_target(rule, route, known, f"routes[{at}].{name}[{number}]")
    matches = [route.match for route in routes]
    if len(set(matches)) < len(matches):
        raise AiConfigError("two routes are for the same", param="routes")


def _check_target(rule: TargetRule, route: Route, known: Collection[str], param: str) -> None:
    if rule.provider not in known:
        raise AiConfigError(f"there is no provider {rule.provider!r}", param=f"{param}.provider")
    if rule.model is not None and "*" in rule.model and route.match.count("*") != 1:
        raise AiConfigError(
            "a model with * goes with a route that has one *", param=f"{param}.model"
        )
    if rule.price is not None:
        rule.price.price("override")


def kind_of(base_url: str) -> Kind:
    """Of the provider that an app names by its base URL alone, which speaks OpenAI's form."""
    host = urlsplit(base_url).hostname or ""
    if host.endswith((".openai.com", ".openai.azure.com")):
        return Kind.OPENAI
    return Kind.OPENROUTER if host == "openrouter.ai" else Kind.COMPATIBLE
