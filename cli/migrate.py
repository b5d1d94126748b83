"""`butterbase migrate`: set up a server before its processes start, as compose.yaml does."""

from butterbase.api.apps import FIRST_APP
from butterbase.cli.runtime import open_cluster
from butterbase.cli.settings import Settings
from butterbase.sql.apps import create_app, set_up_cluster


async def migrate(settings: Settings) -> None:
    """Roles, control database, and the app main. Raises SettingError, MigrationError."""
    cluster = open_cluster(settings)
    await set_up_cluster(cluster)
    app = await create_app(cluster, FIRST_APP)
    print(f"the control database and {app.database} are up to date")
