"""Where the settings are read from, environment, file and database, and how that is reached."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, structs
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

from butterbase.api.rest.postgrest.config import PostgrestConfig, token_settings
from butterbase.api.rest.postgrest.config_file import parse_config
from butterbase.api.rest.postgrest.sources import read_config, unknown_names
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor

APPLICATION_NAME = "butterbase rest"

_PREPARED_COUNT_MAX = 250
"""On each connection."""


class Sources(Struct, frozen=True):
    environment: Mapping[str, str]
    path: Path | None = None
    """Of the configuration file."""

    def read(self, in_database: Mapping[str, str] | None = None) -> PostgrestConfig:
        """Raises SettingError; the file is read anew each time."""
        config = read_config(self.environment, self._file(), in_database or {}, _read_text)
        token_settings(config)
        dsn_of(config)
        return config

    def reread(self, config: PostgrestConfig, in_database: Mapping[str, str]) -> PostgrestConfig:
        """As `read`, but with the database that is connected to. Raises SettingError."""
        return structs.replace(self.read(in_database), db_uri=config.db_uri)

    def unknown_names(self) -> list[str]:
        """Raises SettingError."""
        return unknown_names(self.environment, self._file())

    def _file(self) -> Mapping[str, str]:
        if self.path is None:
            return {}
        return parse_config(_read_text(str(self.path)), self.environment)


def dsn_of(config: PostgrestConfig) -> str:
    """What it lacks, libpq takes from its own variables. Raises SettingError."""
    try:
        return make_conninfo(config.db_uri, fallback_application_name=APPLICATION_NAME)
    except ProgrammingError as error:
        raise SettingError(
            f"db-uri cannot be read: {str(error).strip()}",
            hint="use postgres://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from None


def open_executor(config: PostgrestConfig, *, connection_count_max: int) -> Executor:
    """Raises SettingError."""
    return Executor(
        dsn_of(config),
        connection_count_max=connection_count_max,
        prepared_count_max=_PREPARED_COUNT_MAX if config.db_prepared_statements else 0,
        acquisition_timeout_s=config.db_pool_acquisition_timeout,
    )


def _read_text(path: str) -> str:
    """What is not UTF-8, as a binary secret, is kept by escapes."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error}") from None
