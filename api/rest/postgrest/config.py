"""PostgREST's settings, and what follows from them for requests and tokens. Pure.

https://docs.postgrest.org/en/stable/references/configuration.html
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import fields

from butterbase.api.rest.postgrest.keys import Keys, decode_base64, read_keys
from butterbase.api.rest.postgrest.role_path import RolePath, parse_role_path
from butterbase.api.rest.postgrest.tokens import TokenSettings
from butterbase.api.rest.settings import RestSettings

PREFIX = "PGRST_"
APP_SETTINGS = "app.settings."

TransactionEnd: TypeAlias = Literal[
    "commit", "commit-allow-override", "rollback", "rollback-allow-override"
]
LogLevel: TypeAlias = Literal["crit", "error", "warn", "info", "debug"]
OpenApiMode: TypeAlias = Literal["follow-privileges", "ignore-privileges", "disabled"]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]


class PostgrestConfig(Struct, frozen=True):
    """One field a setting, with a `_` for each `-`; the defaults are PostgREST's."""

    admin_server_host: str | None = None
    admin_server_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    admin_server_unix_socket: str | None = None
    admin_server_unix_socket_mode: str = "660"
    client_error_verbosity: Literal["verbose", "minimal"] = "verbose"
    db_aggregates_enabled: bool = False
    db_anon_role: str | None = None
    db_channel: str = "pgrst"
    db_channel_enabled: bool = True
    db_config: bool = True
    db_extra_search_path: tuple[str, ...] = ("public",)
    db_hoisted_tx_settings: tuple[str, ...] = RestSettings().hoisted_settings
    db_max_rows: Count | None = None
    db_plan_enabled: bool = False
    db_pool: Annotated[int, Meta(ge=1)] = 10
    db_pool_acquisition_timeout: Count = 10
    db_pool_automatic_recovery: bool = True
    db_pool_max_idletime: Count = 30
    db_pool_max_lifetime: Count = 1800
    db_pre_config: str | None = None
    db_pre_request: str | None = None
    db_prepared_statements: bool = True
    db_root_spec: str | None = None
    db_schemas: tuple[str, ...] = ("public",)
    db_tx_end: TransactionEnd = "commit"
    db_uri: str = "postgresql://"
    jwt_aud: str | None = None
    jwt_cache_max_entries: int = 1000
    jwt_role_claim_key: str = "$.role"
    jwt_secret: str | None = None
    jwt_secret_is_base64: bool = False
    log_level: LogLevel = "error"
    log_query: bool = False
    openapi_mode: OpenApiMode = "follow-privileges"
    openapi_security_active: bool = False
    openapi_server_proxy_uri: str | None = None
    server_cors_allowed_origins: tuple[str, ...] = ()
    server_host: str = "!4"
    server_port: Port = 3000
    server_reuseport: bool = False
    server_timing_enabled: bool = False
    server_trace_header: str | None = None
    server_unix_socket: str | None = None
    server_unix_socket_mode: str = "660"
    url_use_legacy_target_names: bool = True
    app_settings: tuple[tuple[str, str], ...] = ()
    """`app.settings.*`, whole names and values, by name."""

    def __repr__(self) -> str:
        return "PostgrestConfig(…)"  # it holds secrets


FIELDS = {f.name.replace("_", "-"): f for f in fields(PostgrestConfig) if f.name != "app_settings"}
"""By the name of the setting."""

ALIASES = {
    "db-max-rows": "max-rows",
    "db-pool-max-idletime": "db-pool-timeout",
    "db-pre-request": "pre-request",
    "db-root-spec": "root-spec",
    "db-schemas": "db-schema",
    "jwt-role-claim-key": "role-claim-key",
    "jwt-secret-is-base64": "secret-is-base64",
}
"""What a setting was called before; the newer name wins."""

RETIRED = frozenset({"db-use-legacy-gucs", "jwt-cache-max-lifetime", "raw-media-types"})
"""Settings of older versions that no longer mean anything."""

IN_DATABASE = frozenset(
    {
        "client-error-verbosity",
        "db-aggregates-enabled",
        "db-anon-role",
        "db-extra-search-path",
        "db-hoisted-tx-settings",
        "db-max-rows",
        "db-plan-enabled",
        "db-pre-config",
        "db-pre-request",
        "db-prepared-statements",
        "db-root-spec",
        "db-schemas",
        "db-tx-end",
        "jwt-aud",
        "jwt-role-claim-key",
        "jwt-secret",
        "jwt-secret-is-base64",
        "openapi-mode",
        "openapi-security-active",
        "openapi-server-proxy-uri",
        "server-cors-allowed-origins",
        "server-timing-enabled",
        "server-trace-header",
        "url-use-legacy-target-names",
    }
)
"""What may be set in the database."""


def rest_settings(config: PostgrestConfig) -> RestSettings:
    return RestSettings(
        schemas=config.db_schemas,
        extra_search_path=config.db_extra_search_path,
        max_rows=config.db_max_rows,
        aggregates_enabled=config.db_aggregates_enabled,
        plan_enabled=config.db_plan_enabled,
        pre_request=split_name(config.db_pre_request) if config.db_pre_request else None,
        root_spec=split_name(config.db_root_spec)[1] if config.db_root_spec else None,
        hoisted_settings=config.db_hoisted_tx_settings,
        rolls_back=config.db_tx_end.startswith("rollback"),
        may_choose_transaction_end=config.db_tx_end.endswith("-allow-override"),
        openapi_mode=config.openapi_mode,
        openapi_security_active=config.openapi_security_active,
        openapi_server_proxy_uri=config.openapi_server_proxy_uri,
        app_settings=config.app_settings,
        server_timing_enabled=config.server_timing_enabled,
        uses_legacy_target_names=config.url_use_legacy_target_names,
    )


def token_settings(config: PostgrestConfig) -> TokenSettings:
    """Raises SettingError."""
    return TokenSettings(
        keys=keys_of(config),
        role_path=role_path_of(config),
        audience=config.jwt_aud,
        anon_role=config.db_anon_role,
        cached_count_max=config.jwt_cache_max_entries,
    )


def keys_of(config: PostgrestConfig) -> Keys | None:
    if config.jwt_secret is None:
        return None
    if config.jwt_secret_is_base64:
        return read_keys(decode_base64(config.jwt_secret))
    return read_keys(config.jwt_secret.encode(errors="surrogateescape"))


def role_path_of(config: PostgrestConfig) -> RolePath:
    return parse_role_path(config.jwt_role_claim_key)


def split_name(text: str) -> tuple[str, str]:
    """Schema, empty when it is left out, and name of a function."""
    schema, _, name = text.rpartition(".")
    return schema, name
