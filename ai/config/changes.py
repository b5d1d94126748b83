"""An app's AI configuration as it is read back, and as it is changed, over HTTP."""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from butterbase.ai.contents.rules import ContentRules
from butterbase.ai.money.config import (
    BUDGET_COUNT_MAX,
    LIMIT_COUNT_MAX,
    Alerts,
    Budget,
    MoneyChange,
    Plan,
    RateLimit,
)
from butterbase.ai.money.prices import PriceBook
from butterbase.ai.routing.config import Key, Model, Providers, ProviderShown, Route, Routes
from butterbase.ai.tools.config import ToolGrant, Tools

LEFT_OUT = Raw(b"")


class AiConfig(Struct, frozen=True, rename="camel", kw_only=True):
    """An app's own configuration, as it is read back; null is "not set"."""

    default_model: str | None
    base_url: str | None
    byok_key: str | None
    """A hint such as `sk-…abcd`, never the key."""
    max_tokens_per_request: int | None
    allowed_models: list[str] | None
    """Null allows every model, an empty list none."""
    allow_anonymous: bool
    providers: dict[str, ProviderShown]
    routes: list[Route]
    cache: Raw
    guards: Raw
    log_content: ContentRules | None
    tools: dict[str, ToolGrant]
    plan: Plan
    budgets: list[Budget]
    limits: list[RateLimit]
    prices: PriceBook
    alerts: Alerts


class AiConfigChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A field that is left out stays as it is; null unsets it. A list or object replaces the one
    before."""

    default_model: Model | UnsetType | None = UNSET
    base_url: str | UnsetType | None = UNSET
    byok_key: Key | UnsetType | None = UNSET
    max_tokens_per_request: Annotated[int, Meta(ge=1, le=100_000)] | UnsetType | None = UNSET
    allowed_models: Annotated[list[Model], Meta(max_length=1000)] | UnsetType | None = UNSET
    allow_anonymous: bool | UnsetType | None = UNSET
    providers: Providers | UnsetType | None = UNSET
    routes: Routes | UnsetType | None = UNSET
    cache: Raw = LEFT_OUT
    guards: Raw = LEFT_OUT
    log_content: ContentRules | UnsetType | None = UNSET
    tools: Tools | UnsetType | None = UNSET
    budgets: Annotated[list[Budget], Meta(max_length=BUDGET_COUNT_MAX)] | UnsetType | None = UNSET
    limits: Annotated[list[RateLimit], Meta(max_length=LIMIT_COUNT_MAX)] | UnsetType | None = UNSET
    prices: PriceBook | UnsetType | None = UNSET
    alerts: Alerts | UnsetType | None = UNSET

    @property
    def money(self) -> MoneyChange:
        return MoneyChange(self.budgets, self.limits, self.prices, self.alerts)
