"""`butterbase keys`: an app's own keys, for where `up` has not printed them, and its app keys."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec

from butterbase.api.apps import keys_of
from butterbase.api.auth.keys import AppKeys
from butterbase.api.keys.errors import KeyNotFoundError
from butterbase.api.keys.store import MadeKey, NewKey, StoredKey, create_key, list_keys, revoke_key
from butterbase.cli.runtime import sealing_file
from butterbase.cli.settings import Settings
from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor
from butterbase.sql.rotation import rewrap_all
from butterbase.sql.sealing import new_key, read_keys, write_keys


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


async def rotate(cluster: Cluster, settings: Settings) -> str:
    """Put a new sealing key before the others, and wrap all stored secrets under it.

    The key that was first stays, for what is being sealed with it now and for copies of the
    database; those before it are dropped. Keys of the settings are the operator's to change: all is
    wrapped under the first of them. Answers what was done. Raises SettingError.
    """
    sealing = cluster.master_key.sealing
    if settings.database.master_key is None:
        file = sealing_file(settings)
        write_keys(file, [new_key(), *read_keys(file)])
        done = await rewrap_all(cluster)
        if not done.unopened_count:
            write_keys(file, read_keys(file)[:2])
    elif settings.database.sealing_keys is None:
        raise SettingError(
            "the master key is a setting, and so must be the sealing keys",
            hint=f"set sealing_keys to a new key, such as {new_key().text()},"
            " for all processes, start them again, and run this again",
        )
    else:
        done = await rewrap_all(cluster)
    told = f"{done.count} secrets are sealed anew, with the key {sealing.all[0].id.hex()}"
    if done.unopened_count:
        told += f"; {done.unopened_count} could not be opened with any key, and are as they were"
    return told


@asynccontextmanager
async def _control(cluster: Cluster, app_id: str) -> AsyncIterator[Executor]:
    await find_app(cluster, app_id)
    dsn = cluster.dsn(LoginRole.SERVICE, cluster.control_database)
    control = Executor(dsn, connection_count_max=1)
    try:
        yield control
    finally:
        await control.close()
