"""An app's AI configuration as the control database keeps it; keys are sealed."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.contents.rules import ContentRules
from butterbase.ai.money.prices import PriceBook
from butterbase.ai.routing.config import ProviderShown, Route
from butterbase.ai.tools.config import ToolGrant
from butterbase.ai.wire.form import NULL
from butterbase.ai.wire.protocols import Kind

_HINT_PREFIX_LENGTH, _HINT_SUFFIX_LENGTH = 3, 4
_HINTED_KEY_LENGTH_MIN = 16
"""Of a shorter key the hint would give away too much."""


class ProviderRow(Struct, frozen=True):
    kind: Kind
    base_url: str
    headers: dict[str, str] = {}
    api_key: bytes | None = None
    api_key_hint: str | None = None

    def shown(self) -> ProviderShown:
        return ProviderShown(self.kind, self.base_url, self.api_key_hint, self.headers)


class ConfigRow(Struct, frozen=True, kw_only=True):
    version: int = 0
    base_url: str | None = None
    api_key: bytes | None = None
    api_key_hint: str | None = None
    default_model: str | None = None
    max_tokens_per_request: int | None = None
    allowed_models: list[str] | None = None
    allows_anonymous: bool = False
    routes: list[Route] = []
    prices: PriceBook | None = None
    cache: Raw = NULL
    guards: Raw = NULL
    log_content: ContentRules | None = None
    tools: dict[str, ToolGrant] = {}
    providers: dict[str, ProviderRow] = {}
    is_limited: bool = False

    @classmethod
    def decode(cls, data: bytes) -> "ConfigRow":
        return _ROW.decode(data)

    def encode(self) -> bytes:
        """What is kept in butterbase.ai_config."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return msgspec.json.encode(kept)

    def encode_providers(self) -> bytes:
        rows: list[dict[str, Any]] = [
            {"name": name, **msgspec.structs.asdict(provider)}
            for name, provider in self.providers.items()
        ]
        return msgspec.json.encode(rows)


_ROW = msgspec.json.Decoder(ConfigRow)
_KEPT = (
    "base_url",
    "api_key",
    "api_key_hint",
    "default_model",
    "max_tokens_per_request",
    "allowed_models",
    "allows_anonymous",
    "routes",
    "cache",
    "guards",
    "log_content",
    "tools",
)


def key_hint(key: str) -> str:
    """`sk-…abcd`: enough to know a key by, of a short one nothing."""
    if len(key) < _HINTED_KEY_LENGTH_MIN:
        return "…"
    return f"{key[:_HINT_PREFIX_LENGTH]}…{key[-_HINT_SUFFIX_LENGTH:]}"
