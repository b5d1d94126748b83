"""The list of models that an app's calls can name: the routes' own, and those of all providers."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.config.configs import AppConfig
from butterbase.ai.errors import (
    AiError,
    ModelUnknownError,
    ProviderMissingError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from butterbase.ai.routing.resolution import Provider
from butterbase.ai.wire.failures import decode_error
from butterbase.ai.wire.listings import LISTING_PATHS, Model, decode_listing, encode_listing
from butterbase.ai.wire.protocols import Kind, WireName
from butterbase.ai.wire.wires import TARGET_WIRES

TIMEOUT_S = 10.0
"""A provider that has not listed its models by then is left out."""

_OWNER = "butterbase"
_KEY_WIRES = {Kind.ANTHROPIC: WireName.ANTHROPIC, Kind.GEMINI: WireName.GEMINI}

_log = logging.getLogger(__name__)


async def list_models(gateway: Gateway, app_id: str, wire: WireName, path: str) -> bytes:
    """What `GET models`, or `GET models/{id}`, answers. It costs no event.

    Raises ProviderMissingError, ModelUnknownError, UpstreamError when no provider answers.
    """
    app = await gateway.configs.of(app_id)
    models = await _models(gateway, app)
    _, _, asked = path.partition("/")
    if not asked:
        return encode_listing(wire, models)
    for model in models:
        if model.id == asked:
            (listed,) = msgspec.json.decode(encode_listing(wire, [model]))["data"]
            return msgspec.json.encode(listed)
    raise ModelUnknownError(f"no route of the app leads to {asked!r}")


async def _models(gateway: Gateway, app: AppConfig) -> list[Model]:
    table = app.table
    if not table.providers:
        raise ProviderMissingError(
            hint="set BUTTERBASE_AI_BASE_URL for all apps, or baseUrl with PUT ai/config"
        )
    asked = [_ask(gateway, provider) for provider in table.providers]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = {name: Model(name, owner=_OWNER) for name in table.names}
    failures = []
    for provider, answer in zip(table.providers, answers, strict=True):
        if isinstance(answer, UpstreamError):
            _log.warning("provider %s lists no models: %s", provider.name, answer)
            failures.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found |= {m.id: m for m in _reached(app, provider, answer) if m.id not in found}
    if len(failures) == len(answers) and not table.names:
        raise failures[0]
    allowed = app.allowed_models
    return [model for model in found.values() if allowed is None or model.id in allowed]


def _reached(app: AppConfig, provider: Provider, models: Iterable[Model]) -> Iterable[Model]:
    """Those that a call by their name goes to."""
    for model in models:
        try:
            targets = app.table.resolve(model.id).targets
        except AiError:
            continue
        if any(t.provider is provider and t.model == model.id for t in targets):
            yield model


async def _ask(gateway: Gateway, provider: Provider) -> tuple[Model, ...]:
    """Raises UpstreamError."""
    wire: Any = TARGET_WIRES[_KEY_WIRES.get(provider.kind, WireName.CHAT)]
    path = LISTING_PATHS.get(provider.kind, "models")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await gateway.upstream.ask(
                f"{provider.base_url}/{path}",
                headers={**wire.headers(provider.api_key), **provider.headers},
                provider=provider.name,
                is_private_allowed=provider.is_operators,
            )
            if not 200 <= answer.status < 300:
                body = await answer.read_error()
                raise UpstreamRefusedError(decode_error(answer.status, {}, body))
            size_max = gateway.settings.ai_response_bytes_max
            return decode_listing(provider.kind, await answer.read_whole(bytes_max=size_max))
    except TimeoutError as error:
        raise UpstreamTimeoutError from error
