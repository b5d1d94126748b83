"""What every command starts from: the master key, the cluster, the log's format."""

import hashlib
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from psycopg.conninfo import make_conninfo

from butterbase.cli.log import JsonFormatter, LogFormatter
from butterbase.cli.settings import Settings
from butterbase.sql.cluster import Cluster
from butterbase.sql.confinement import prctl
from butterbase.sql.embedded import SOCKET_PATH_BYTES_MAX, SUPERUSER
from butterbase.sql.errors import SettingError
from butterbase.sql.sealing import SealingKey
from butterbase.sql.secrets import MasterKey

SUPERVISED = "BUTTERBASE_SUPERVISED"
"""Set for the processes that `up` starts: its process id."""


def load_master_key(settings: Settings) -> MasterKey:
    """The key of the settings, or the one in the data directory, made at the first start."""
    database = settings.database
    given = [SealingKey.parse(text) for text in (database.sealing_keys or "").split(",") if text]
    if database.master_key:
        return MasterKey.parse(database.master_key, sealing=given)
    if given:
        raise SettingError("sealing_keys go with a master_key of the settings; else use the file")
    path = database.directory / "master.key"
    return MasterKey.load_or_create(path, sealing_file=sealing_file(settings))


def sealing_file(settings: Settings) -> Path:
    """The sealing keys, where the master key is a file as well."""
    return settings.database.directory / "sealing.keys"


def superuser_password(master_key: MasterKey) -> str:
    """Of the embedded server's superuser."""
    return master_key.derive(f"role:{SUPERUSER}")


def open_cluster(settings: Settings) -> Cluster:
    """The cluster of the settings, or the embedded one that `up` runs. Raises SettingError."""
    key = load_master_key(settings)
    dsn = settings.database.database_url or _embedded_dsn(settings.database.directory, key)
    return Cluster(dsn, key, control_database=settings.database.control_database)


def handover_path(settings: Settings) -> Path:
    """The socket on which the stream process takes over websockets from the api.

    It lies in the data directory, or where the path would be too long for a socket, in a private
    directory of the system's. Raises SettingError when another user has made that one.
    """
    settings.database.directory.mkdir(parents=True, exist_ok=True)
    return _socket_path(settings, "realtime.sock")


def functions_path(settings: Settings) -> Path:
    """The socket on which the functions process is called; it lies as the other one does.

    Whoever listens there makes the directory first. Raises SettingError.
    """
    return _socket_path(settings, "functions.sock")


def _socket_path(settings: Settings, name: str) -> Path:
    path = settings.database.directory / name
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir(), f"butterbase-{digest}")
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.lstat().st_uid != os.getuid() or directory.is_symlink():
        raise SettingError(f"{directory} belongs to another user; choose a shorter --data-dir")
    return directory / path.name


def models_dir(settings: Settings) -> Path:
    """What local models keep between starts."""
    return settings.database.directory / "models"


def set_up_logging(*, is_json: bool = False) -> None:
    """As JSON also where it was set up before."""
    handler = logging.StreamHandler()
    text = LogFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if is_json else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=is_json)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def die_with_supervisor() -> None:
    """End when the process that started this one, if it was ours, is gone."""
    if supervisor := os.environ.get(SUPERVISED):
        die_with(int(supervisor))


def die_with(parent: int) -> None:
    """Ask Linux for SIGTERM when the parent process is gone."""
    if sys.platform == "linux":
        prctl.die_with_parent(signal.SIGTERM)
        # It may have gone before we asked. In a container it may well be process 1.
        if os.getppid() != parent:
            raise SystemExit("the process that started this one is gone")


def _embedded_dsn(directory: Path, key: MasterKey) -> str:
    try:
        port = int((directory / "pg.port").read_text())
    except (OSError, ValueError):
        raise SettingError(
            f"no embedded Postgres in {directory}; run `butterbase up`, or set DATABASE_URL"
        ) from None
    return make_conninfo(
        host="127.0.0.1",
        port=port,
        user=SUPERUSER,
        password=superuser_password(key),
        dbname="postgres",
    )
