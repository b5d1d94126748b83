"""What reading files and pages may take."""

from typing import Annotated

from msgspec import Meta

from butterbase.sql.settings import SettingGroup


class DocumentSettings(SettingGroup, frozen=True):
    documents_bytes_max: Annotated[
        int, Meta(description="largest file that is taken in, in bytes", ge=1024, le=256 * 1024**2)
    ] = 32 * 1024**2
    documents_parsers: Annotated[
        int, Meta(description="files that are read at a time", ge=1, le=64)
    ] = 2
    documents_parse_s: Annotated[
        int, Meta(description="seconds in which a file must be read", ge=1, le=3600)
    ] = 120
    documents_parse_cpu_s: Annotated[
        int, Meta(description="processor seconds that reading a file may take", ge=1, le=3600)
    ] = 60
    documents_parse_memory_bytes: Annotated[
        int, Meta(description="memory that reading a file may take, in bytes", ge=256 * 1024**2)
    ] = 1024**3
    documents_jail: Annotated[
        bool,
        Meta(
            description="read files only in a process that can open nothing; false where the"
            " system has no such thing and all who send files are trusted"
        ),
    ] = True
    documents_keep_files: Annotated[
        bool, Meta(description="keep files in the database, so that they can be read again")
    ] = True
    documents_fetch_s: Annotated[
        float, Meta(description="seconds in which a URL must be fetched", gt=0, le=600)
    ] = 30.0
    documents_private_urls: Annotated[
        bool, Meta(description="let documents be fetched from private networks and this machine")
    ] = False
