"""What an app's AI calls use and may use: its configuration before our settings."""

import asyncio
import time
from collections.abc import Callable, Mapping

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from butterbase.ai.config.changes import LEFT_OUT, AiConfig, AiConfigChange
from butterbase.ai.config.rows import ConfigRow, ProviderRow, key_hint
from butterbase.ai.contents.rules import ContentRules
from butterbase.ai.errors import AiConfigError
from butterbase.ai.money.config import (
    read_money,
    statements,
)
from butterbase.ai.money.prices import PriceBook
from butterbase.ai.routing.config import (
    ProviderChange,
    base_url_of,
    check_base_url,
    check_provider,
    check_routes,
    kind_of,
)
from butterbase.ai.routing.resolution import Provider, RoutingTable, host_of
from butterbase.ai.seams import NO_SEAMS, Seams
from butterbase.ai.settings import AiSettings
from butterbase.ai.tools.config import ToolGrant, check_tools
from butterbase.ai.wire.form import NULL
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError, SettingError
from butterbase.sql.pipeline import Executor, Result, Statement
from butterbase.sql.secrets import MasterKey

__all__ = ["AiConfig", "AiConfigChange", "AiConfigs", "AppConfig", "key_hint"]

QUERIES = load_queries("ai_config")

KEPT_S = 2.0
"""A configuration is read again after that. A call is admitted by the one that holds then, or is
begun anew with it; what comes before the admission may go by one that is as old as this."""

KEPT_COUNT_MAX = 1000
_TRIES_MAX = 10
_FOREIGN_KEY_VIOLATION = "23503"
_UNTRANSLATABLE_CHARACTER = "22P05"


class AppConfig(Struct, frozen=True):
    """What holds for an app's calls."""

    version: int
    table: RoutingTable
    default_model: str | None
    token_count_max: int | None
    """Of what one request may have generated; None is no limit."""
    allowed_models: frozenset[str] | None
    """None allows all."""
    allows_anonymous: bool
    is_limited: bool
    """A budget or a rate limit of tokens is set: calls need an upper bound."""
    prices: PriceBook
    cache_rules: Raw
    guard_rules: Raw
    log_content: ContentRules | None
    tools: Mapping[str, ToolGrant]
    """That requests may name, for the gateway to run."""
    read_at_s: float


class AiConfigs:
    """Reads and changes configurations. Calls use what this worker read a moment ago."""

    def __init__(
        self,
        control: Executor,
        master_key: MasterKey,
        settings: AiSettings,
        *,
        seams: Seams = NO_SEAMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`control` is the control database's, as butterbase_service.

        Raises SettingError when the settings' base URL is not one.
        """
        self._control = control
        self._master_key = master_key
        self._settings = settings
        self._seams = seams
        self._clock = clock
        self._kept: dict[str, AppConfig] = {}
        self._reading: dict[str, asyncio.Task[AppConfig]] = {}
        try:
            self._base_url = settings.ai_base_url and check_base_url(settings.ai_base_url)
        except AiConfigError as error:
            raise SettingError(f"ai_base_url: {error.message}") from error

    async def read(self, app_id: str) -> AiConfig:
        """Raises DatabaseUnavailableError."""
        return await self._shown(app_id, await self._find(app_id))

    async def change(self, app_id: str, change: AiConfigChange) -> AiConfig:
        """Raises AiConfigError; nothing is changed then."""
        for _ in range(_TRIES_MAX):
            before = await self._find(app_id)
            row = self._changed(app_id, before, change)
            try:
                if await self._save(app_id, before.version, row, change):
                    self.forget(app_id)
                    return await self._shown(app_id, row)
            except DatabaseError as error:
                if error.sqlstate == _UNTRANSLATABLE_CHARACTER:
                    # Wherever it stands: of all that JSON can say, it alone is no text to Postgres.
                    raise AiConfigError("no text may have a NUL (\\u0000)") from error
                if error.sqlstate != _FOREIGN_KEY_VIOLATION:
                    raise
                raise AiConfigError(f"there is no app {app_id!r}") from error
        raise DatabaseUnavailableError("the configuration is being changed by others")

    async def of(self, app_id: str) -> AppConfig:
        """For a call. Raises DatabaseUnavailableError."""
        kept = self._kept.get(app_id)
        if kept is not None and self._clock() - kept.read_at_s < KEPT_S:
            return kept
        reading = self._reading.get(app_id)
        if reading is None:
            # A task, since a caller that leaves is not the only one who waits.
            reading = self._reading[app_id] = asyncio.create_task(self._read_app(app_id))
            reading.add_done_callback(lambda task: self._keep(app_id, task))
        return await asyncio.shield(reading)

    def forget(self, app_id: str) -> None:
        """It has been changed, by another worker perhaps."""
        self._kept.pop(app_id, None)
        # What is being read may be of before.
        self._reading.pop(app_id, None)

    async def close(self) -> None:
        reading = list(self._reading.values())
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    async def _read_app(self, app_id: str) -> AppConfig:
        read_at_s = self._clock()
        return self._app_config(app_id, await self._find(app_id), read_at_s)

    def _keep(self, app_id: str, reading: "asyncio.Task[AppConfig]") -> None:
        if self._reading.get(app_id) is not reading:
            return
        del self._reading[app_id]
        if reading.cancelled() or reading.exception() is not None:
            return
        self._kept[app_id] = reading.result()
        if len(self._kept) > KEPT_COUNT_MAX:
            self._kept.pop(next(iter(self._kept)))

    async def _find(self, app_id: str) -> ConfigRow:
        (result,) = await self._control.run(Statement.of(QUERIES["read"], app_id))
        return ConfigRow.decode(result.value() or b"")

    async def _save(
        self, app_id: str, version: int, row: ConfigRow, change: AiConfigChange
    ) -> bool:
        """False: it has been changed since that version."""
        save = Statement.of(QUERIES["save"], app_id, version, row.encode())
        made = [save]
        if change.providers is not UNSET:
            made.append(Statement.of(QUERIES["put_providers"], app_id, row.encode_providers()))
        made += statements(app_id, change.money)

        class _ChangedSinceError(Exception):
            pass

        def check(results: list[Result]) -> None:
            if results[0].row_count == 0:
                raise _ChangedSinceError

        try:
            await self._control.run(*made, check=check)
        except _ChangedSinceError:
            return False
        return True

    async def _shown(self, app_id: str, row: ConfigRow) -> AiConfig:
        default = self._settings.ai_default_plan
        money = await read_money(self._control, app_id, default_plan=default)
        return AiConfig(
            default_model=row.default_model,
            base_url=row.base_url,
            byok_key=row.api_key_hint,
            max_tokens_per_request=row.max_tokens_per_request,
            allowed_models=row.allowed_models,
            allow_anonymous=row.allows_anonymous,
            providers={name: provider.shown() for name, provider in row.providers.items()},
            routes=row.routes,
            cache=row.cache,
            guards=row.guards,
            log_content=row.log_content,
            tools=row.tools,
            plan=money.plan,
            budgets=money.budgets,
            limits=money.limits,
            prices=money.prices,
            alerts=money.alerts,
        )

    # What a change makes of a row

    def _changed(self, app_id: str, row: ConfigRow, change: AiConfigChange) -> ConfigRow:
        """Raises AiConfigError."""
        base_url = row.base_url if change.base_url is UNSET else change.base_url
        base_url = (base_url and check_base_url(base_url)) or None
        key, hint = row.api_key, row.api_key_hint
        if change.byok_key is not UNSET:
            key, hint = self._seal(change.byok_key, _purpose(app_id))
        elif key is not None and base_url != row.base_url:
            # Else whoever may change the URL could have the stored key sent to themselves.
            raise AiConfigError(
                "a new base URL needs its key",
                param="byokKey",
                hint="send byokKey with baseUrl: the provider's key, or null for none",
            )
        default = row.default_model if change.default_model is UNSET else change.default_model
        allowed = row.allowed_models if change.allowed_models is UNSET else change.allowed_models
        if default is not None and allowed is not None and default not in allowed:
            raise AiConfigError("it must be one of allowedModels", param="defaultModel")
        limit, anonymous = change.max_tokens_per_request, change.allow_anonymous
        providers = row.providers
        if change.providers is not UNSET:
            providers = self._providers(app_id, row.providers, change.providers or {})
        routes = row.routes if change.routes is UNSET else change.routes or []
        check_routes(routes, providers)
        tools = row.tools if change.tools is UNSET else change.tools or {}
        check_tools(tools)
        self._check_rules(change)
        return replace(
            row,
            base_url=base_url,
            api_key=key,
            api_key_hint=hint,
            default_model=default,
            max_tokens_per_request=row.max_tokens_per_request if limit is UNSET else limit,
            allowed_models=allowed,
            allows_anonymous=row.allows_anonymous if anonymous is UNSET else bool(anonymous),
            providers=providers,
            routes=routes,
            cache=row.cache if change.cache == LEFT_OUT else change.cache,
            guards=row.guards if change.guards == LEFT_OUT else change.guards,
            log_content=row.log_content if change.log_content is UNSET else change.log_content,
            tools=tools,
        )

    def _check_rules(self, change: AiConfigChange) -> None:
        """Raises AiConfigError."""
        rules = [(change.cache, self._seams.cache, "cache")]
        rules += [(change.guards, self._seams.guards, "guards")]  # type: ignore[list-item]
        for route in (change.routes or []) if change.routes is not UNSET else []:
            rules += [(route.cache, self._seams.cache, "cache")]
            rules += [(route.guards, self._seams.guards, "guards")]  # type: ignore[list-item]
        for rule, seam, name in rules:
            if rule in (LEFT_OUT, NULL):
                continue
            if seam is None:
                raise AiConfigError("it is not there", param=name)
            seam.check(rule)

    def _providers(
        self, app_id: str, before: dict[str, ProviderRow], after: dict[str, ProviderChange]
    ) -> dict[str, ProviderRow]:
        """Raises AiConfigError."""
        made = {}
        for name, provider in after.items():
            check_provider(name, provider)
            base_url, old = base_url_of(name, provider), before.get(name)
            if provider.api_key is not UNSET:
                key, hint = self._seal(provider.api_key, _purpose(app_id, name))
            elif old is None or old.api_key is None:
                key, hint = None, None
            elif (old.base_url, old.kind) == (base_url, provider.kind):
                key, hint = old.api_key, old.api_key_hint
            else:
                raise AiConfigError(
                    "a new base URL needs its key",
                    param=f"providers.{name}.apiKey",
                    hint="send apiKey with it: the provider's key, or null for none",
                )
            made[name] = ProviderRow(provider.kind, base_url, provider.headers, key, hint)
        return made

    def _seal(self, key: str | None, purpose: str) -> tuple[bytes | None, str | None]:
        if key is None:
            return None, None
        return self._master_key.seal(key.encode(), purpose=purpose), key_hint(key)

    # What calls use

    def _app_config(self, app_id: str, row: ConfigRow, read_at_s: float) -> AppConfig:
        providers = {
            name: Provider(
                name,
                provider.kind,
                provider.base_url,
                self._open(provider.api_key, _purpose(app_id, name)),
                provider.headers,
            )
            for name, provider in row.providers.items()
        }
        default = self._default(app_id, row)
        is_operators = default is not None and default.is_operators
        return AppConfig(
            version=row.version,
            table=RoutingTable(row.routes, providers, default),
            default_model=row.default_model
            or (self._settings.ai_default_model if is_operators else None),
            token_count_max=row.max_tokens_per_request,
            allowed_models=None if row.allowed_models is None else frozenset(row.allowed_models),
            allows_anonymous=row.allows_anonymous,
            is_limited=row.is_limited,
            prices=row.prices or PriceBook(),
            cache_rules=row.cache,
            guard_rules=row.guards,
            log_content=row.log_content,
            tools=row.tools,
            read_at_s=read_at_s,
        )

    def _default(self, app_id: str, row: ConfigRow) -> Provider | None:
        """The operator's key and default model belong to the operator's base URL: an app that has
        its own base URL gets neither."""
        base_url = row.base_url or self._base_url
        if base_url is None:
            return None
        is_operators = row.base_url is None
        own_key = self._open(row.api_key, _purpose(app_id))
        return Provider(
            host_of(base_url),
            kind_of(base_url),
            base_url,
            own_key or (self._settings.ai_api_key if is_operators else None),
            is_operators=is_operators,
            is_byok=own_key is not None or not is_operators,
        )

    def _open(self, sealed: bytes | None, purpose: str) -> str | None:
        if sealed is None:
            return None
        return self._master_key.open(sealed, purpose=purpose).decode()


def _purpose(app_id: str, provider: str | None = None) -> str:
    # One app's sealed key does not open in another's row, nor one provider's in another's.
    return f"ai_config:{app_id}" if provider is None else f"ai_provider:{app_id}:{provider}"
