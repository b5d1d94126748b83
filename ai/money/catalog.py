"""Prices of known models: genai-prices' data, which comes with its package; no network is asked.

The package takes half a second and some twenty megabytes to load, so a worker loads it in a thread,
and a model's price is translated once. https://github.com/pydantic/genai-prices
"""

import asyncio
import functools
import gc
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from butterbase.ai.money.amounts import NANO
from butterbase.ai.money.prices import FREE, Price, PriceBook, Rate

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

Kind: TypeAlias = Literal[
    "openai", "anthropic", "gemini", "openrouter", "ollama", "openai_compatible"
]

KEPT_COUNT_MAX = 5_000
"""Models whose price is remembered, known or not: a client may name any."""

_PROVIDER_IDS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "openrouter": "openrouter",
}
_OWN_MACHINE = Price(FREE, FREE)


class Model(Struct, frozen=True):
    """Whom a call goes to."""

    provider: str
    """Its name in the app's configuration."""
    kind: Kind
    base_url: str
    name: str


class Known(Struct, frozen=True):
    price: Price
    context_tokens: int | None
    """How long a prompt may be; None where it is not known."""


class Catalog:
    """Answers in microseconds once it is loaded. Not for several threads."""

    def __init__(self, find: "Callable[[Model], ModelInfo | None]") -> None:
        self._find = find
        self._models: OrderedDict[tuple[str, str, str], ModelInfo | None] = OrderedDict()
        self._translated: dict[int, tuple[ModelPrice, Price | None]] = {}

    def known(self, model: Model, at: datetime) -> Known | None:
        """The model's price at that time; None where the list does not have it."""
        if model.kind == "ollama":
            return Known(_OWN_MACHINE, None)
        key = (model.kind, model.base_url, model.name)
        if key in self._models:
            self._models.move_to_end(key)
        else:
            self._models[key] = self._find(model)
            if len(self._models) > KEPT_COUNT_MAX:
                self._models.popitem(last=False)
        info = self._models[key]
        if info is None or (price := self._translate(info.get_prices(at))) is None:
            return None
        return Known(price, info.context_window)

    def price(self, book: PriceBook, model: Model, at: datetime) -> Price:
        """The app's own price, else the list's, else the app's for unknown models."""
        own = book.override(model.provider, model.name)
        if own is not None:
            return own
        known = self.known(model, at)
        return book.fallback_price() if known is None else known.price

    def _translate(self, price: "ModelPrice") -> Price | None:
        # The data's own objects: as many as there are prices, and they stay.
        if id(price) not in self._translated:
            self._translated[id(price)] = (price, _translated(price))
        return self._translated[id(price)][1]


async def load_catalog() -> Catalog:
    """The process's one catalog."""
    return await asyncio.to_thread(_loaded)


@functools.cache
def _loaded() -> Catalog:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    # A hundred thousand objects that stay: a full collection that looks through them holds up all
    # calls of the worker for a tenth of a second, again and again.
    gc.freeze()

    def find(model: Model) -> "ModelInfo | None":
        provider_id = _PROVIDER_IDS.get(model.kind)
        # A server of an own is asked for by its URL; that of a proxy tells nothing, but names of
        # models are their makers'.
        asked = [(provider_id, None)] if provider_id else [(None, model.base_url), (None, None)]
        for id_, url in asked:
            try:
                return snapshot.find_provider_model(model.name, None, id_, url)[1]
            except LookupError:
                continue
        return None

    return Catalog(find)


def _translated(price: "ModelPrice") -> Price | None:
    """None: it is not by the token."""
    if price.input_mtok is None:
        return None
    write, requests = price.cache_write_mtok, price.requests_kcount
    return Price(
        _rate(price.input_mtok),
        FREE if price.output_mtok is None else _rate(price.output_mtok),
        cached_input=_part(price.cache_read_mtok),
        cache_write=_part(price.cache_write_5m_mtok if write is None else write),
        cache_write_hour=_part(price.cache_write_1h_mtok),
        reasoning=_part(price.output_reasoning_mtok),
        input_audio=_part(price.input_audio_mtok),
        output_audio=_part(price.output_audio_mtok),
        request_nanos=_nanos(requests) // 1000 if isinstance(requests, Decimal) else 0,
    )


def _part(price: Any) -> Rate | None:
    return None if price is None else _rate(price)


def _rate(price: Any) -> Rate:
    if isinstance(price, Decimal):
        return Rate(_nanos(price))
    return Rate(_nanos(price.base), tuple((t.start, _nanos(t.price)) for t in price.tiers))


def _nanos(usd: Decimal) -> int:
    return round(usd * NANO)
