"""`butterbase migrate`: set up a server before its processes start, as compose.yaml does."""

from butterbase.cli.runtime import open_cluster
from butterbase.cli.settings import Settings
from butterbase.cli.setup import set_up


async def migrate(settings: Settings) -> None:
    """Raises SettingError, MigrationError."""
    app = await set_up(open_cluster(settings), schemas=settings.stream.schemas)
    print(f"the control database and {app.database} are up to date")
