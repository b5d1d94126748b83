"""Settings of the database: where it is, and where our own files are."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct


class SettingGroup(Struct, frozen=True):
    """A folder's settings. Among them are secrets, so its repr shows none of them."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class DatabaseSettings(SettingGroup, frozen=True):
    database_url: Annotated[
        str | None,
        Meta(description="DSN of a Postgres 15-18 of your own, as a superuser; default embedded"),
    ] = None
    data_dir: Annotated[
        str, Meta(description="directory of the embedded Postgres and of our files")
    ] = ".butterbase"
    master_key: Annotated[
        str | None,
        Meta(description="32 bytes, base64url; every secret follows from it; default a file"),
    ] = None
    sealing_keys: Annotated[
        str | None,
        Meta(
            description="keys that stored secrets are sealed with, each 32 bytes, base64url, with"
            " commas between them; the first one seals; default a file, or the master key's"
        ),
    ] = None
    control_database: Annotated[str, Meta(description="name of the control database")] = (
        "butterbase"
    )

    @property
    def directory(self) -> Path:
        return Path(self.data_dir).resolve()
