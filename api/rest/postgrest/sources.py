"""Variables, a file and the database → PostgrestConfig, and back to a file's text. Pure.

A setting `db-schemas` is `PGRST_DB_SCHEMAS` in the environment and `pgrst.db_schemas` in the
database; the database wins over the environment, and that over the file.
https://docs.postgrest.org/en/stable/references/configuration.html
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import FieldInfo

from butterbase.api.rest.postgrest.checks import check, read_boolean
from butterbase.api.rest.postgrest.config import (
    ALIASES,
    APP_SETTINGS,
    FIELDS,
    PREFIX,
    RETIRED,
    PostgrestConfig,
)
from butterbase.sql.errors import SettingError

_EMPTYABLE = "db-extra-search-path"
"""Empty text means no schema there, and elsewhere that the setting has its default."""


def read_config(
    environment: Mapping[str, str],
    file: Mapping[str, str],
    in_database: Mapping[str, str],
    read_file: Callable[[str], str],
) -> PostgrestConfig:
    """The settings, with what `@path` names read by `read_file`. Raises SettingError.

    The mappings are the whole environment, the configuration file, and the settings of the
    database by their names with dashes.
    """
    values: dict[str, Any] = {}
    for name, field in FIELDS.items():
        text, source = _find(name, environment, file, in_database)
        if text is not None:
            values[field.name] = _convert(text, field, source)
    values["app_settings"] = _app_settings(environment, file)
    config = msgspec.convert(_read_files(values, read_file), PostgrestConfig)
    check(config)
    return config


def unknown_names(environment: Mapping[str, str], file: Mapping[str, str]) -> list[str]:
    """Variables and lines of the file that set nothing, as PostgREST ignores them too."""
    known = FIELDS.keys() | set(ALIASES.values()) | RETIRED
    variables = {_variable(name) for name in known}
    return [
        *sorted(
            name
            for name in environment
            if name.startswith(PREFIX)
            and name not in variables
            and not name.startswith(f"{PREFIX}APP_SETTINGS_")
        ),
        *(name for name in file if name not in known and not name.startswith(APP_SETTINGS)),
    ]


def dump_config(config: PostgrestConfig) -> str:
    """The settings as a configuration file, in the order of their names; it holds secrets."""
    lines = {name: _dump(getattr(config, field.name)) for name, field in FIELDS.items()}
    lines["admin-server-host"] = _dump(config.admin_server_host or config.server_host)
    lines |= {name: _quote(value) for name, value in config.app_settings}
    return "".join(f"{name} = {value}\n" for name, value in sorted(lines.items()))


def example_config() -> str:
    """A configuration file of the defaults, those without one commented out."""
    config = PostgrestConfig()
    lines = []
    for name, field in FIELDS.items():
        value = getattr(config, field.name)
        lines.append(f"{'# ' if value in (None, ()) else ''}{name} = {_dump(value)}\n")
    return "".join(lines)


def _find(
    name: str,
    environment: Mapping[str, str],
    file: Mapping[str, str],
    in_database: Mapping[str, str],
) -> tuple[str | None, str]:
    """The text and where it was found; None when the setting has its default."""
    for one in (name, *([ALIASES[name]] if name in ALIASES else [])):
        for text, source in (
            (in_database.get(one), f"pgrst.{one.replace('-', '_')} of the database"),
            (environment.get(_variable(one)), _variable(one)),
            (file.get(one), f"{one} of the configuration file"),
        ):
            if text is not None:
                # As with PostgREST, a setting that is empty hides one that is not.
                if text or name == _EMPTYABLE:
                    return text, source
                break
    return None, ""


def _variable(name: str) -> str:
    return PREFIX + name.replace("-", "_").upper()


def _app_settings(
    environment: Mapping[str, str], file: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    prefix = f"{PREFIX}APP_SETTINGS_"
    found = {name: value for name, value in file.items() if name.startswith(APP_SETTINGS)}
    for name, value in environment.items():
        if name.startswith(prefix):
            found[APP_SETTINGS + name.removeprefix(prefix)] = value
    return tuple(sorted(found.items()))


def _convert(text: str, field: FieldInfo, source: str) -> Any:
    value: Any = text
    if field.type == tuple[str, ...]:
        value = tuple(part.strip() for part in text.split(",")) if text else ()
    elif field.type is bool:
        value = read_boolean(text, source)
    try:
        return msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(f"{source}: {error}", hint=_hint(field)) from None


def _hint(field: FieldInfo) -> str | None:
    values = getattr(field.type, "__args__", ())
    if getattr(field.type, "__origin__", None) is Literal:
        return f"use one of {', '.join(values)}"
    return None


def _read_files(values: dict[str, Any], read_file: Callable[[str], str]) -> dict[str, Any]:
    """`db-uri` and `jwt-secret` may be `@path`."""
    read = dict(values)
    for name, strip in (("db_uri", str.strip), ("jwt_secret", _without_line_end)):
        text = values.get(name)
        if text and text.startswith("@"):
            read[name] = strip(read_file(text[1:]))
    return read


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n")


def _dump(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case None:
            return '""'
        case tuple():
            return _quote(",".join(value))
        case _:
            return _quote(str(value))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
