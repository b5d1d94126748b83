"""A model's name → the chain of targets that may serve it; without IO."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Raw, Struct

from butterbase.ai.errors import ModelUnknownError, ProviderMissingError
from butterbase.ai.money.prices import PriceUsd
from butterbase.ai.routing.config import (
    DEFAULT,
    Retries,
    Route,
    Strategy,
    TargetRule,
    Timeouts,
)
from butterbase.ai.wire.form import NULL
from butterbase.ai.wire.protocols import Kind

_NO_TIMEOUTS = Timeouts()


class Provider(Struct, frozen=True):
    """A provider as it is called."""

    name: str
    """In the app's configuration; of the default one its host."""
    kind: Kind
    base_url: str
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    is_operators: bool = False
    """The base URL is the operator's own, and so may be a private address."""
    is_byok: bool = True
    """The key is the app's own, or there is none at an address of its own."""

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self.base_url!r})"

    @property
    def is_openai(self) -> bool:
        return self.kind is Kind.OPENAI


class Target(Struct, frozen=True):
    provider: Provider
    model: str
    """The provider's own name of it."""
    weight: int = 1
    timeouts: Timeouts = _NO_TIMEOUTS
    price: PriceUsd | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Targets with the same key fail together."""
        return (self.provider.name, self.provider.base_url, self.model)


class Chain(Struct, frozen=True):
    """What may serve a call."""

    model: str
    """As asked for."""
    targets: tuple[Target, ...]
    strategy: Strategy = "ordered"
    retries: Retries = Retries()
    context_window: tuple[Target, ...] = ()
    content_policy: tuple[Target, ...] = ()
    route: str | None = None
    """The `match` of the app's route; None where it has none for the model."""
    cache_rules: Raw = NULL
    guard_rules: Raw = NULL

    @property
    def all_targets(self) -> tuple[Target, ...]:
        return self.targets + self.context_window + self.content_policy


class RoutingTable:
    """An app's routes over its providers."""

    def __init__(
        self,
        routes: Sequence[Route],
        providers: Mapping[str, Provider],
        default: Provider | None,
    ) -> None:
        self._providers = dict(providers)
        if default is not None:
            self._providers[DEFAULT] = default
        elif len(providers) == 1:
            (default,) = providers.values()
        self._default = default
        self._names = {route.match: route for route in routes if not route.is_pattern}
        self._patterns = [route for route in routes if route.is_pattern]
        self._order = {route.match: at for at, route in enumerate(routes)}

    @property
    def names(self) -> list[str]:
        """The models that the routes name."""
        return list(self._names)

    @property
    def providers(self) -> list[Provider]:
        """Each once."""
        found = {(p.base_url, p.api_key): p for p in reversed(self._providers.values())}
        return list(reversed(found.values()))

    def resolve(self, model: str) -> Chain:
        """Raises ModelUnknownError, ProviderMissingError."""
        route, matched = self._find(model)
        if route is None:
            if self._default is not None:
                return Chain(model, (Target(self._default, model),))
            if not self._providers:
                raise ProviderMissingError(
                    hint="set BUTTERBASE_AI_BASE_URL for all apps, or baseUrl with PUT ai/config"
                )
            raise ModelUnknownError(
                f"no route of the app leads to {model!r}",
                hint="GET models lists what there is; PUT ai/config sets the routes",
            )
        fallbacks = route.fallbacks
        return Chain(
            model,
            self._targets(route.targets, model, matched),
            route.strategy,
            route.retries,
            self._targets(fallbacks.context_window, model, matched),
            self._targets(fallbacks.content_policy, model, matched),
            route.match,
            route.cache,
            route.guards,
        )

    def _find(self, model: str) -> tuple[Route | None, str]:
        """The route, and what its `*` matched. The first in the app's order."""
        named = self._names.get(model)
        for route in self._patterns:
            if named is not None and self._order[named.match] < self._order[route.match]:
                break
            if (found := matched(route.match, model)) is not None:
                return route, found
        return named, ""

    def _targets(self, rules: Sequence[TargetRule], model: str, matched: str) -> tuple[Target, ...]:
        targets = []
        for rule in rules:
            provider = self._providers.get(rule.provider)
            if provider is not None:  # the default one may be gone
                name = model if rule.model is None else rule.model.replace("*", matched)
                timeouts = rule.timeouts or _NO_TIMEOUTS
                targets.append(Target(provider, name, rule.weight, timeouts, rule.price))
        if rules and not targets:
            raise ProviderMissingError(
                hint="the routes of this model name the default provider, and there is none"
            )
        return tuple(targets)


def matched(pattern: str, text: str) -> str | None:
    """What the first `*` stands for; empty where there is none; None: it does not match.

    In linear time, unlike a regular expression with as many stars.
    """
    first, *between = pattern.split("*")
    if not between:
        return "" if text == pattern else None
    last = between.pop()
    if not text.startswith(first):
        return None
    at = len(first)
    star = at
    end = len(text) - len(last)
    star_end = end
    for number, piece in enumerate(between):
        at = text.find(piece, at, end)
        if at < 0:
            return None
        if number == 0:
            star_end = at
        at += len(piece)
    return text[star:star_end] if at <= end and text.endswith(last) else None


def host_of(base_url: str) -> str:
    return urlsplit(base_url).hostname or ""
