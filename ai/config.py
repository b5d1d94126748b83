"""What an app's AI calls use and may use: its row of `butterbase.ai_config` before our settings."""

from typing import Annotated

import psycopg
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.errors import AiConfigError, ProviderMissingError
from butterbase.ai.providers import MODEL_LENGTH_MAX, Route, check_base_url
from butterbase.ai.settings import AiSettings
from butterbase.sql.errors import DatabaseUnavailableError, SettingError
from butterbase.sql.secrets import MasterKey

POOL_TIMEOUT_S = 2.0
"""Wait for a connection to the control database; beyond it, it counts as unavailable."""

_HINT_PREFIX_LENGTH, _HINT_SUFFIX_LENGTH = 3, 4
_HINTED_KEY_LENGTH_MIN = 16
"""Of a shorter key the hint would give away too much."""

_Model = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]+\Z", max_length=MODEL_LENGTH_MAX)]


class AiConfig(Struct, frozen=True, rename="camel"):
    """An app's own configuration, as it is read back; null is "not set"."""

    default_model: str | None = None
    base_url: str | None = None
    byok_key: str | None = None
    """A hint such as `sk-…abcd`, never the key."""
    max_tokens_per_request: int | None = None
    allowed_models: list[str] | None = None
    """Null allows every model, an empty list none."""


class AiConfigChange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A field that is left out stays as it is; null unsets it."""

    default_model: _Model | UnsetType | None = UNSET
    base_url: str | UnsetType | None = UNSET
    # Visible ASCII: it goes into a header.
    byok_key: Annotated[str, Meta(pattern=r"\A[!-~]{8,512}\Z")] | UnsetType | None = UNSET
    max_tokens_per_request: Annotated[int, Meta(ge=1, le=100_000)] | UnsetType | None = UNSET
    allowed_models: Annotated[list[_Model], Meta(max_length=1000)] | UnsetType | None = UNSET


class _Row(Struct, frozen=True):
    base_url: str | None = None
    api_key_encrypted: bytes | None = None
    api_key_hint: str | None = None
    default_model: str | None = None
    max_tokens_per_request: int | None = None
    allowed_models: list[str] | None = None

    def shown(self) -> AiConfig:
        return AiConfig(
            default_model=self.default_model,
            base_url=self.base_url,
            byok_key=self.api_key_hint,
            max_tokens_per_request=self.max_tokens_per_request,
            allowed_models=self.allowed_models,
        )


# No row: the app has set nothing.
_FIND = """
select base_url, api_key_encrypted, api_key_hint, default_model, max_tokens_per_request,
  allowed_models
from butterbase.ai_config where app_id = %s
"""

_SAVE = """
insert into butterbase.ai_config
  (app_id, base_url, api_key_encrypted, api_key_hint, default_model, max_tokens_per_request,
   allowed_models)
values (%s, %s, %s, %s, %s, %s, %s)
on conflict (app_id) do update set
  base_url = excluded.base_url,
  api_key_encrypted = excluded.api_key_encrypted,
  api_key_hint = excluded.api_key_hint,
  default_model = excluded.default_model,
  max_tokens_per_request = excluded.max_tokens_per_request,
  allowed_models = excluded.allowed_models,
  updated_at = now()
"""

# Two changes of one app at a time would each undo what the other set.
_LOCK = "select pg_advisory_xact_lock(hashtextextended('ai_config:' || %s, 0))"


class AiConfigs:
    """Reads and changes configurations, without a cache: a withdrawn key is out of use at once."""

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection],
        master_key: MasterKey,
        settings: AiSettings,
    ) -> None:
        """Raises SettingError when the settings' base URL is not one."""
        self._pool = pool
        self._master_key = master_key
        self._settings = settings
        try:
            self._base_url = settings.ai_base_url and check_base_url(settings.ai_base_url)
        except AiConfigError as error:
            raise SettingError(f"ai_base_url: {error.message}") from error

    async def read(self, app_id: str) -> AiConfig:
        return (await self._find(app_id)).shown()

    async def change(self, app_id: str, change: AiConfigChange) -> AiConfig:
        """Raises AiConfigError; nothing is changed then."""
        try:
            async with self._pool.connection(POOL_TIMEOUT_S) as conn, conn.transaction():
                await conn.execute(_LOCK, [app_id])
                row = self._changed(app_id, await _find(conn, app_id), change)
                await conn.execute(
                    _SAVE,
                    [
                        app_id,
                        row.base_url,
                        row.api_key_encrypted,
                        row.api_key_hint,
                        row.default_model,
                        row.max_tokens_per_request,
                        row.allowed_models,
                    ],
                )
        except psycopg.errors.ForeignKeyViolation as error:
            raise AiConfigError(f"there is no app {app_id!r}") from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError from error
        return row.shown()

    async def route(self, app_id: str) -> Route:
        """Where the app's calls go. Raises ProviderMissingError, DatabaseUnavailableError.

        The operator's key and default model belong to the operator's base URL: an app that has
        its own base URL gets neither.
        """
        row = await self._find(app_id)
        base_url = row.base_url or self._base_url
        if base_url is None:
            raise ProviderMissingError(
                hint="set BUTTERBASE_AI_BASE_URL for all apps, or baseUrl with PUT ai/config"
            )
        is_operators = row.base_url is None
        api_key = self._settings.ai_api_key if is_operators else None
        default_model = self._settings.ai_default_model if is_operators else None
        if row.api_key_encrypted is not None:
            sealed = row.api_key_encrypted
            api_key = self._master_key.open(sealed, purpose=_purpose(app_id)).decode()
        return Route(
            base_url=base_url,
            api_key=api_key,
            default_model=row.default_model or default_model,
            token_count_max=row.max_tokens_per_request,
            allowed_models=None if row.allowed_models is None else frozenset(row.allowed_models),
            is_operators=is_operators,
        )

    async def _find(self, app_id: str) -> _Row:
        try:
            async with self._pool.connection(POOL_TIMEOUT_S) as conn:
                return await _find(conn, app_id)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError from error

    def _changed(self, app_id: str, row: _Row, change: AiConfigChange) -> _Row:
        """The row after the change. Raises AiConfigError."""
        base_url = row.base_url if change.base_url is UNSET else change.base_url
        base_url = base_url and check_base_url(base_url)
        key, hint = row.api_key_encrypted, row.api_key_hint
        if change.byok_key is not UNSET:
            key, hint = self._seal(app_id, change.byok_key)
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
        limit = change.max_tokens_per_request
        return _Row(
            base_url=base_url or None,
            api_key_encrypted=key,
            api_key_hint=hint,
            default_model=default,
            max_tokens_per_request=row.max_tokens_per_request if limit is UNSET else limit,
            allowed_models=allowed,
        )

    def _seal(self, app_id: str, key: str | None) -> tuple[bytes | None, str | None]:
        if key is None:
            return None, None
        return self._master_key.seal(key.encode(), purpose=_purpose(app_id)), key_hint(key)


def key_hint(key: str) -> str:
    """`sk-…abcd`: enough to know a key by, of a short one nothing."""
    if len(key) < _HINTED_KEY_LENGTH_MIN:
        return "…"
    return f"{key[:_HINT_PREFIX_LENGTH]}…{key[-_HINT_SUFFIX_LENGTH:]}"


def _purpose(app_id: str) -> str:
    # One app's sealed key does not open in another's row.
    return f"ai_config:{app_id}"


async def _find(conn: AsyncConnection, app_id: str) -> _Row:
    cursor = await conn.execute(_FIND, [app_id])
    row = await cursor.fetchone()
    return _Row() if row is None else _Row(*row)
