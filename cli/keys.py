"""`butterbase keys`: an app's keys, for where `up` has not printed them."""

from butterbase.api.apps import keys_of
from butterbase.api.auth.keys import AppKeys
from butterbase.cli.settings import Settings
from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster


async def find_keys(cluster: Cluster, settings: Settings, app_id: str) -> AppKeys:
    """Raises SettingError when there is no such app."""
    app = await find_app(cluster, app_id)
    return keys_of(cluster, app.id, app.created_at, settings.api)
