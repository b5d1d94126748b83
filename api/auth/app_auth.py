"""What auth knows of one app: its keys and settings, beside the connections of its runtime."""

from collections.abc import Mapping

from msgspec import Struct

from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.config_store import AuthConfigs
from butterbase.api.auth.mail.mailers import mailer_of
from butterbase.api.auth.mail.outbox import Outbox
from butterbase.api.auth.refresh_tokens import RefreshTokens
from butterbase.api.auth.tokens import Tokens
from butterbase.api.auth.webhooks import Web
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey


class AppAuth(Struct, frozen=True):
    url: str
    """Of the app's auth, without a slash at the end; the issuer of its tokens."""
    master_key: MasterKey
    tokens: Tokens
    refresh_tokens: RefreshTokens
    configs: AuthConfigs
    outbox: Outbox
    web: Web
    """To hooks that are URLs."""
    jwt_expiry_s: int
    """Where the app's settings say nothing."""


def app_auth(
    app_id: str,
    *,
    url: str,
    master_key: MasterKey,
    tokens: Tokens,
    service: Executor,
    web: Web,
    jwt_expiry_s: int,
    fixed: Mapping[str, object] = {},
) -> AppAuth:
    """`fixed` are settings that hold whatever is stored."""

    def on_read(config: AuthConfig) -> None:
        tokens.key_epoch = config.key_epoch

    configs = AuthConfigs(app_id, service, master_key, on_read=on_read, fixed=fixed)
    return AppAuth(
        url=url,
        master_key=master_key,
        tokens=tokens,
        refresh_tokens=RefreshTokens(master_key.derive_bytes(f"refresh:{app_id}", length=32)),
        configs=configs,
        outbox=Outbox(app_id, service, master_key, configs.get, mailer_of(service, web)),
        web=web,
        jwt_expiry_s=jwt_expiry_s,
    )
