"""How a REST API behaves: for an app, and in PostgREST mode from its PGRST_* variables."""

from typing import Literal

from msgspec import Struct


class RestSettings(Struct, frozen=True):
    """Names and meanings are PostgREST's: https://docs.postgrest.org/en/stable/references/configuration.html"""

    schemas: tuple[str, ...] = ("public",)
    """`db-schemas`; the first is the default."""
    extra_search_path: tuple[str, ...] = ("public",)
    max_rows: int | None = None
    aggregates_enabled: bool = False
    plan_enabled: bool = False
    pre_request: tuple[str, str] | None = None
    """Schema (may be empty) and name of a function."""
    root_spec: str | None = None
    """A function that answers at the root, instead of the OpenAPI description."""
    hoisted_settings: tuple[str, ...] = (
        "statement_timeout",
        "plan_filter.statement_cost_limit",
        "default_transaction_isolation",
    )
    """`db-hoisted-tx-settings`: of a function's `SET` clauses, those for the transaction."""
    rolls_back: bool = False
    """`db-tx-end`: whether transactions are rolled back unless asked otherwise."""
    may_choose_transaction_end: bool = False
    """`db-tx-end`: whether `Prefer: tx=` is heard."""
    openapi_mode: Literal["follow-privileges", "ignore-privileges", "disabled"] = (
        "follow-privileges"
    )
    openapi_security_active: bool = False
    openapi_server_proxy_uri: str | None = None
    public_url: str | None = None
    """Where clients reach the API, for the OpenAPI description."""
    app_settings: tuple[tuple[str, str], ...] = ()
    """`app.settings.*`, whole names and values."""
    server_timing_enabled: bool = False
    tells_position: bool = False
    once: tuple[str, str] | None = None
    """A function, by schema and name, that is called with the key of a write that is to happen
    once, in its transaction, and raises where it has.
    """
    """Whether reads are answered with the position in the log from which changes follow them."""
    uses_legacy_target_names: bool = True
    """`url-use-legacy-target-names`: an aliased relation may be filtered by its own name too."""
