"""What a call may cost and did cost: prices of its targets, its upper bound, its charge."""

from collections.abc import Iterable
from datetime import datetime

from butterbase.ai.calls.asked import Asked, Endpoint, count_references
from butterbase.ai.config.configs import AppConfig
from butterbase.ai.money.catalog import Catalog, Known
from butterbase.ai.money.catalog import Model as PricedModel
from butterbase.ai.money.estimate import (
    COMPLETION_TOKENS_DEFAULT,
    Bound,
    bound_call,
    prompt_tokens_max,
)
from butterbase.ai.money.prices import Charge, Price, bound, charge
from butterbase.ai.routing.resolution import Target
from butterbase.ai.wire import claude
from butterbase.ai.wire.form import Usage
from butterbase.ai.wire.protocols import Kind


class Tariff:
    """The prices of an app, at one time."""

    def __init__(self, catalog: Catalog, app: AppConfig, at: datetime) -> None:
        self._catalog = catalog
        self._app = app
        self._at = at
        self._prices: dict[object, Price] = {}
        self._known: dict[object, Known | None] = {}

    def price(self, target: Target) -> Price:
        key = (target.key, target.price)
        price = self._prices.get(key)
        if price is None:
            if target.price is not None:
                price = target.price.price("override")
            else:
                price = self._price_of(target, target.model)
            self._prices[key] = price
        return price

    def _price_of(self, target: Target, model: str) -> Price:
        """Of any model of the target's provider."""
        return self._catalog.price(self._app.prices, _priced(target, model), self._at)

    def context_tokens(self, targets: Iterable[Target]) -> int | None:
        """Of the longest; None where one is not known."""
        longest = 0
        for target in targets:
            key = (target.provider.kind, target.key)
            if key not in self._known:
                self._known[key] = self._catalog.known(_priced(target, target.model), self._at)
            known = self._known[key]
            if known is None or known.context_tokens is None:
                return None
            longest = max(longest, known.context_tokens)
        return longest or None

    def bound(self, asked: Asked, targets: tuple[Target, ...]) -> Bound:
        """What the call uses and costs at most, whichever of the targets serve it."""
        references = count_references(asked)
        others = asked.other_models
        prompt_tokens = prompt_tokens_max(
            asked.byte_count,
            image_count=references.images,
            file_count=references.files,
            search_count=references.tools,
            tool_count=references.described_tools,
            context_tokens=None if others else self.context_tokens(targets),
        )
        prices = [self.price(target) for target in targets]
        prices += [self._price_of(target, other) for target in targets for other in others]
        return bound_call(
            prices,
            prompt_tokens=prompt_tokens,
            completion_tokens=_completion_tokens(asked, targets),
            choice_count=asked.passing.choice_count,
        )

    def cost(self, target: Target, of: Bound) -> int:
        """Nano-dollars that so many tokens cost there at most."""
        return bound(
            self.price(target),
            prompt_tokens=of.prompt_tokens,
            completion_tokens=of.completion_tokens,
        )

    def charge(self, target: Target, usage: Usage) -> Charge:
        return charge(self.price(target), usage)


def _completion_tokens(asked: Asked, targets: Iterable[Target]) -> int:
    if asked.endpoint is Endpoint.EMBEDDINGS:
        return 0
    # What was predicted wrongly counts as answered, beside the limit.
    predicted = len(bytes(asked.passing.fields.get("prediction", b"")))
    limit = asked.passing.token_count or asked.limit
    if limit is not None:
        return limit + predicted
    # Anthropic's wire has no request without a limit, and is given one.
    limits = [
        claude.default_max_tokens(target.model)
        for target in targets
        if target.provider.kind is Kind.ANTHROPIC
    ]
    return max([COMPLETION_TOKENS_DEFAULT, *limits]) + predicted


def _priced(target: Target, model: str) -> PricedModel:
    provider = target.provider
    return PricedModel(provider.name, provider.kind.value, provider.base_url, model)
