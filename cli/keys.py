"""`butterbase keys`: an app's own keys, for where `up` has not printed them, and its app keys."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from butterbase.api.apps import keys_of
from butterbase.api.auth.keys import AppKeys
from butterbase.api.keys.errors import KeyNotFoundError
from butterbase.api.keys.store import MadeKey, NewKey, StoredKey, create_key, list_keys, revoke_key
from butterbase.cli.settings import Settings
from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor


async def find_keys(cluster: Cluster, settings: Settings, app_id: str) -> AppKeys:
    """Raises SettingError when there is no such app."""
    app = await find_app(cluster, app_id)
    return keys_of(cluster, app.id, app.created_at, settings.api)


async def create(
    cluster: Cluster, app_id: str, *, name: str, scopes: Sequence[str], days: int
) -> MadeKey:
    """Raises SettingError when there is no such app, or this can be no key of it."""
    asked = {"name": name, "scopes": [*dict.fromkeys(scopes)], "expires_in_days": days}
    try:
        new = msgspec.convert(asked, NewKey)
    except msgspec.ValidationError as error:
        raise SettingError(f"no such key can be made: {error}") from error
    async with _control(cluster, app_id) as control:
        return await create_key(control, app_id, new)


async def listed(cluster: Cluster, app_id: str) -> list[StoredKey]:
    """Raises SettingError when there is no such app."""
    async with _control(cluster, app_id) as control:
        return await list_keys(control, app_id)


async def revoke(cluster: Cluster, app_id: str, key_id: str) -> None:
    """Raises SettingError when there is no such app, or no such key of it."""
    async with _control(cluster, app_id) as control:
        try:
            await revoke_key(control, app_id, str(UUID(key_id)))
        except (ValueError, KeyNotFoundError) as error:
            raise SettingError(f"there is no key {key_id}") from error


@asynccontextmanager
async def _control(cluster: Cluster, app_id: str) -> AsyncIterator[Executor]:
    await find_app(cluster, app_id)
    dsn = cluster.dsn(LoginRole.SERVICE, cluster.control_database)
    control = Executor(dsn, connection_count_max=1)
    try:
        yield control
    finally:
        await control.close()
