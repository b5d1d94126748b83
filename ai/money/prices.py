"""What a call costs: tokens and prices → nano-dollars, without IO.

Rates are nano-dollars for a million tokens: whole numbers, so that a call's sum is exact, and is
rounded once.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, DecimalException
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.ai.money.amounts import NANO, parse_usd
from butterbase.ai.wire.form import Usage
from butterbase.projections.usage import NANOS_MAX, PriceSource

_MILLION = 1_000_000

OVERRIDE_COUNT_MAX = 1000


class Rate(Struct, frozen=True):
    base: int
    tiers: tuple[tuple[int, int], ...] = ()
    """(prompt tokens, rate), ascending: with more tokens than that all of them are at that rate."""

    def at(self, prompt_tokens: int) -> int:
        rate = self.base
        for above, dearer in self.tiers:
            if prompt_tokens > above:
                rate = dearer
        return rate

    def dearest(self, prompt_tokens: int) -> int:
        """Of a prompt that has at most so many tokens."""
        if not self.tiers:
            return self.base
        return max([self.base, *(rate for above, rate in self.tiers if above < prompt_tokens)])


FREE = Rate(0)


class Price(Struct, frozen=True):
    """A model's rates. A kind of token that has none is charged as what it is a part of."""

    input: Rate
    output: Rate
    source: PriceSource = "catalog"
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    cache_write_hour: Rate | None = None
    reasoning: Rate | None = None
    input_audio: Rate | None = None
    output_audio: Rate | None = None
    request_nanos: int = 0


class Charge(Struct, frozen=True):
    nanos: int
    source: PriceSource


NOTHING = Charge(0, "none")


def charge(price: Price, usage: Usage) -> Charge:
    """What the call costs: by a price that the app has set, else as the provider itself says, where
    it does, else by the list's price."""
    is_set = price.source == "override"
    if not is_set and usage.cost is not None and (nanos := _told(usage.cost)) is not None:
        return Charge(nanos, "provider")
    return Charge(min(cost(price, usage), NANOS_MAX), price.source)


def cost(price: Price, usage: Usage) -> int:
    """Nano-dollars, rounded to the nearest; half of one is rounded up."""
    return (_rated(price, usage) + _MILLION // 2) // _MILLION + price.request_nanos


def bound(price: Price, *, prompt_tokens: int, completion_tokens: int) -> int:
    """Nano-dollars that no call with at most so many tokens costs more than, whatever they are."""
    prompt_rate, completion_rate = dearest_rates(price, prompt_tokens)
    nanos = prompt_tokens * prompt_rate + completion_tokens * completion_rate
    return min(-(-nanos // _MILLION) + price.request_nanos, NANOS_MAX)


def dearest_rates(price: Price, prompt_tokens: int) -> tuple[int, int]:
    """Of a token of the prompt, which has at most so many, and of one of the answer."""
    inputs = (price.input, price.cached_input, price.cache_write, price.cache_write_hour)
    outputs = (price.output, price.reasoning, price.output_audio)
    return (
        _dearest((*inputs, price.input_audio), prompt_tokens),
        _dearest(outputs, prompt_tokens),
    )


def _dearest(rates: Iterable[Rate | None], prompt_tokens: int) -> int:
    return max([rate.dearest(prompt_tokens) for rate in rates if rate is not None])


def _rated(price: Price, usage: Usage) -> int:
    """Tokens times rates. Parts that are more than their whole are cut to it."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached = min(usage.cached_tokens, prompt)
    written = min(usage.cache_write_tokens, prompt - cached)
    written_hour = min(usage.cache_write_hour_tokens, written)
    audio_in = min(usage.prompt_audio_tokens, prompt - cached - written)
    reasoning = min(usage.reasoning_tokens, completion)
    audio_out = min(usage.completion_audio_tokens, completion - reasoning)
    write = price.cache_write or price.input
    parts = (
        (prompt - cached - written - audio_in, price.input),
        (cached, price.cached_input or price.input),
        (written - written_hour, write),
        (written_hour, price.cache_write_hour or write),
        (audio_in, price.input_audio or price.input),
        (completion - reasoning - audio_out, price.output),
        (reasoning, price.reasoning or price.output),
        (audio_out, price.output_audio or price.output),
    )
    return sum(count * rate.at(prompt) for count, rate in parts)


def _told(usd: Decimal) -> int | None:
    """None: it is no amount, and does not count."""
    try:
        # Before it becomes a whole number, which for an exponent of a million takes minutes.
        if not 0 <= usd <= NANOS_MAX // NANO:
            return None
        return int((usd * NANO).to_integral_value(ROUND_HALF_UP))
    except DecimalException:  # it is no number
        return None


# An app's own prices


class PriceUsd(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """USD for a million tokens. What is left out is charged as input or as output."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | UnsetType = UNSET
    cache_write: Decimal | UnsetType = UNSET
    reasoning: Decimal | UnsetType = UNSET

    def price(self, source: PriceSource) -> Price:
        """Raises AmountError."""
        return Price(
            Rate(parse_usd(self.input)),
            Rate(parse_usd(self.output)),
            source,
            cached_input=_rate(self.cached_input),
            cache_write=_rate(self.cache_write),
            reasoning=_rate(self.reasoning),
        )


class PriceOverride(PriceUsd, frozen=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    """The model that is called, or a pattern such as `gpt-*`."""
    provider: Annotated[str, Meta(max_length=255)] | None = None
    """Name of one of the app's providers; None for each."""


class PriceBook(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An app's prices, which go before the catalog's."""

    overrides: Annotated[list[PriceOverride], Meta(max_length=OVERRIDE_COUNT_MAX)] = []
    """The first that matches holds."""
    fallback: PriceUsd | None = None
    """Of models that are in no list; None for DEFAULT_FALLBACK."""

    def override(self, provider: str, model: str) -> Price | None:
        for entry in self.overrides:
            if entry.provider in {None, provider} and fnmatchcase(model, entry.model):
                return entry.price("override")
        return None

    def fallback_price(self) -> Price:
        return (self.fallback or DEFAULT_FALLBACK).price("fallback")


DEFAULT_FALLBACK = PriceUsd(Decimal(5), Decimal(25))
"""That of a large model: an unknown one is rather charged too much than for nothing."""


def _rate(usd: Decimal | UnsetType) -> Rate | None:
    return None if usd is UNSET else Rate(parse_usd(usd))
