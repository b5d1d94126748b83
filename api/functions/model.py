"""What is said of functions over the API: what is deployed and what is shown."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from butterbase.api.functions.errors import InvalidFunctionError
from butterbase.projections.triggers import DatabaseConfig, Event

_NAME: Final = r"(?!v1\Z)[A-Za-z][A-Za-z0-9_-]{0,62}\Z"
Name: TypeAlias = Annotated[str, Meta(pattern=rf"\A{_NAME}")]

FILE_COUNT_MAX: Final = 200
FILES_BYTES_MAX: Final = 8 * 1024**2
VARIABLE_COUNT_MAX: Final = 100
VARIABLE_BYTES_MAX: Final = 48 * 1024
TRIGGER_COUNT_MAX: Final = 50

ENTRYPOINTS: Final = ("index.ts", "index.tsx", "index.js", "index.mjs", "main.ts", "mod.ts")
"""The one that is run where none is named, if it is there."""

_PATH: Final = re.compile(
    r"(?:[A-Za-z0-9_@()\[\]-][A-Za-z0-9_.@()\[\]-]*/)*[A-Za-z0-9_@()\[\]-][A-Za-z0-9_.@()\[\]-]*"
)
_CODE: Final = (".ts", ".tsx", ".mts", ".js", ".jsx", ".mjs")
_DATA: Final = (".json", ".txt")
_UNREAD: Final = frozenset({"package.json", "tsconfig.json", "jsconfig.json"})
"""What would tell the bundler what to do."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED: Final = ("BUTTERBASE_", "SUPABASE_")

Attempts: TypeAlias = Annotated[int, Meta(ge=1, le=100)]


class Trigger(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """What all kinds have."""

    kind: ClassVar[str]
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,63}\Z")] | None = None
    """What it is known by when the function is deployed again; made of the rest where missing."""
    enabled: bool = True
    max_attempts: Attempts | None = None


class DatabaseTrigger(Trigger, frozen=True, tag="database", kw_only=True):
    """See projections/triggers.py."""

    kind = "database"
    table: str
    schema: str = "public"
    events: tuple[Event, ...] = ("INSERT", "UPDATE", "DELETE")
    filter: str = ""
    columns: tuple[str, ...] | None = None
    ordered: bool = False

    @property
    def config(self) -> DatabaseConfig:
        return DatabaseConfig(
            table=self.table,
            schema=self.schema,
            events=tuple(dict.fromkeys(self.events)),
            filter=self.filter,
            columns=self.columns,
            ordered=self.ordered,
        )


Overlap: TypeAlias = Literal["skip", "allow", "queue"]
CatchUp: TypeAlias = Literal["none", "last", "all"]


class CronTrigger(Trigger, frozen=True, tag="cron", kw_only=True):
    kind = "cron"
    schedule: Annotated[str, Meta(max_length=200)]
    """Five fields, `@every 30s`, `@hourly` and its kin."""
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    overlap: Overlap = "skip"
    """What to do at a time that is due while the one before still runs."""
    catch_up: CatchUp = "none"
    """Which of the times that nobody was there for are run later."""
    payload: Any = None

    @property
    def config(self) -> "CronConfig":
        return CronConfig(self.schedule, self.time_zone, self.overlap, self.catch_up, self.payload)


class CronConfig(Struct, frozen=True, omit_defaults=True):
    """As it is kept."""

    schedule: str
    time_zone: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "none"
    payload: Any = None


class QueueTrigger(Trigger, frozen=True, tag="queue", kw_only=True):
    kind = "queue"
    queue: Name

    @property
    def config(self) -> "QueueConfig":
        return QueueConfig(self.queue)


class QueueConfig(Struct, frozen=True):
    queue: str


AnyTrigger: TypeAlias = DatabaseTrigger | CronTrigger | QueueTrigger
ATTEMPTS: Final[Mapping[str, int]] = {"database": 8, "queue": 8, "cron": 1}
"""Where a trigger names none. What is due again soon is not tried again."""


class PermissionsGiven(
    Struct, frozen=True, forbid_unknown_fields=True, rename={"import_": "import"}
):
    """What there is beside these a function has not, whatever is said."""

    net: Annotated[list[str], Meta(max_length=200)] = []
    """Hosts that it may ask."""
    env: Annotated[list[str], Meta(max_length=VARIABLE_COUNT_MAX)] | None = None
    """Those of its variables that it is shown; all by default."""
    service: bool = False
    """Whether its token reads and writes all data of the app, past row-level security."""
    read: bool | list[str] = False
    write: bool | list[str] = False
    run: bool | list[str] = False
    ffi: bool | list[str] = False
    sys: bool | list[str] = False
    import_: bool | list[str] = False


class Change(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of a function that is there; what is not said stays as it is."""

    env: dict[str, str | None] | UnsetType = UNSET
    """Variables to set, and with null to remove."""
    permissions: PermissionsGiven | UnsetType = UNSET
    verify_jwt: bool | UnsetType = UNSET
    timeout_ms: Annotated[int, Meta(ge=100, le=900_000)] | UnsetType = UNSET
    memory_mb: Annotated[int, Meta(ge=16, le=4096)] | UnsetType = UNSET
    active_version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | UnsetType = UNSET
    triggers: Annotated[list[AnyTrigger], Meta(max_length=TRIGGER_COUNT_MAX)] | UnsetType = UNSET
    """All of them: others are removed."""


class Deployment(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function, or the next version of one."""

    name: Name
    code: str | UnsetType = UNSET
    """One file, or else `files`."""
    files: dict[str, str] | UnsetType = UNSET
    """Path → text."""
    entrypoint: str | UnsetType = UNSET


class Sources(Struct, frozen=True):
    files: dict[str, str]
    entrypoint: str


def is_name(text: str) -> bool:
    """Whether a function may be called so."""
    return re.match(_NAME, text) is not None


def sources_of(deployment: Deployment) -> Sources:
    """Raises InvalidFunctionError."""
    if isinstance(deployment.code, str) == isinstance(deployment.files, dict):
        raise InvalidFunctionError("a function has either `code` or `files`")
    if isinstance(deployment.active_version, int):
        raise InvalidFunctionError(
            "a deployment makes a version of its own", hint="`active_version` is for PATCH"
        )
    if isinstance(deployment.code, str):
        _check_size([deployment.code])
        return Sources({"index.ts": deployment.code}, "index.ts")
    assert isinstance(deployment.files, dict)
    files = {name: text for name, text in deployment.files.items() if _base(name) not in _UNREAD}
    if not 1 <= len(files) <= FILE_COUNT_MAX:
        raise InvalidFunctionError(f"a function has 1 to {FILE_COUNT_MAX} files")
    for name in files:
        if not _PATH.fullmatch(name) or len(name) > 200 or not name.endswith(_CODE + _DATA):
            raise InvalidFunctionError(
                f"{name[:100]!r} is no path of a file of a function",
                hint=f"paths are relative and plain, and end in {', '.join(_CODE + _DATA)}",
            )
    _check_size(files.values())
    _check_folders(files)
    entrypoint = deployment.entrypoint
    if not isinstance(entrypoint, str):
        code = [name for name in files if name.endswith(_CODE)]
        found = [name for name in ENTRYPOINTS if name in files] or code
        if len(found) > 1 and found[0] not in ENTRYPOINTS:
            raise InvalidFunctionError("which file is the entrypoint?", hint="name one")
        entrypoint = found[0] if found else ""
    if entrypoint not in files or not entrypoint.endswith(_CODE):
        raise InvalidFunctionError(f"there is no code {entrypoint[:100]!r} to begin with")
    return Sources(files, entrypoint)


def _check_size(texts: Iterable[str]) -> None:
    """Raises InvalidFunctionError."""
    if sum(len(text.encode()) for text in texts) > FILES_BYTES_MAX:
        raise InvalidFunctionError(f"a function's files have {FILES_BYTES_MAX} bytes at most")


def _check_folders(files: Collection[str]) -> None:
    """On some machines names that differ by case are one. Raises InvalidFunctionError."""
    folders = {
        folder.as_posix().lower() for name in files for folder in PurePosixPath(name).parents
    }
    names = [name.lower() for name in files]
    for name in files:
        if name.lower() in folders or names.count(name.lower()) > 1:
            raise InvalidFunctionError(f"{name!r} is two files, or a file and a folder")


def check_env(env: Mapping[str, str | None]) -> None:
    """Raises InvalidFunctionError."""
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidFunctionError(f"{name[:100]!r} is no name of a variable")
        if name.upper().startswith(_RESERVED):
            raise InvalidFunctionError(f"{name}: names that begin so are the platform's")
        if value is not None and len(value.encode("utf-8", "surrogatepass")) > VARIABLE_BYTES_MAX:
            raise InvalidFunctionError(f"{name} is longer than {VARIABLE_BYTES_MAX} bytes")


def check_permissions(given: PermissionsGiven) -> None:
    """Raises InvalidFunctionError."""
    for name in ("read", "write", "run", "ffi", "sys", "import_"):
        if getattr(given, name):
            raise InvalidFunctionError(
                f"no function is given the permission {name.rstrip('_')}",
                hint="there are no files, programs or libraries where functions run; what they may"
                " be given is `net` and `service`",
            )


def _base(path: str) -> str:
    return path.rpartition("/")[2]
