"""Settings of all folders, from flags, `BUTTERBASE_*` variables and butterbase.toml, in that order.

A setting has one name everywhere: the field `jwt_secret` is `--jwt-secret`,
`BUTTERBASE_JWT_SECRET` and, in the file, `jwt_secret = "…"`.
"""

import argparse
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields, replace

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.settings import ApiSettings
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.errors import SettingError
from butterbase.sql.settings import DatabaseSettings, SettingGroup

FILE = "butterbase.toml"
PREFIX = "BUTTERBASE_"

# Names that other tools have made customary; ours wins where both are set. Not OPENAI_API_KEY: it
# would go to whatever provider the base URL names.
CUSTOMARY = {"database_url": "DATABASE_URL", "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT"}


class StreamSettings(SettingGroup, frozen=True):
    stream_host: Annotated[str, Meta(description="address of the stream's own port")] = "127.0.0.1"
    stream_port: Annotated[
        int | None,
        Meta(description="port for websockets past the api, for a proxy; default none"),
    ] = None
    realtime_schemas: Annotated[
        str, Meta(description="schemas whose tables can be subscribed to, comma-separated")
    ] = "public"
    realtime_connections: Annotated[
        int, Meta(description="websockets that are open at a time", ge=1)
    ] = 10_000
    realtime_compression: Annotated[
        bool, Meta(description="compress what websockets are sent, where the client can read it")
    ] = False
    realtime_channels: Annotated[int, Meta(description="channels of a websocket", ge=1)] = 100
    realtime_joins_per_s: Annotated[
        int, Meta(description="channels that a websocket may join in a second", ge=1)
    ] = 100
    realtime_messages_per_s: Annotated[
        int, Meta(description="messages that a websocket may send in a second", ge=1)
    ] = 1000
    realtime_presence_calls: Annotated[
        int, Meta(description="presence calls of a channel in 30 seconds", ge=1)
    ] = 30
    realtime_payload_bytes: Annotated[
        int, Meta(description="largest payload of a broadcast", ge=1024, le=12_000_000)
    ] = 3_000_000
    realtime_replay_s: Annotated[
        int, Meta(description="how long a client may be away and be told what it missed", ge=1)
    ] = 600
    realtime_replay_log_bytes: Annotated[
        int, Meta(description="log of the server that is kept for that", ge=1024**2)
    ] = 256 * 1024**2
    realtime_replay_memory_bytes: Annotated[
        int, Meta(description="memory for that, of each app, about", ge=1024**2)
    ] = 64 * 1024**2

    @property
    def schemas(self) -> tuple[str, ...]:
        """Raises SettingError where none is named."""
        found = [name for part in self.realtime_schemas.split(",") if (name := part.strip())]
        if not found:
            raise SettingError("realtime_schemas names no schema")
        return tuple(found)

    @property
    def realtime(self) -> RealtimeSettings:
        defaults = RealtimeSettings()
        return replace(
            defaults,
            schemas=self.schemas,
            connection_count_max=self.realtime_connections,
            is_compressed=self.realtime_compression,
            channel_count_max=self.realtime_channels,
            join_rate_max=self.realtime_joins_per_s,
            message_rate_max=self.realtime_messages_per_s,
            presence_call_count_max=self.realtime_presence_calls,
            payload_bytes_max=self.realtime_payload_bytes,
            replay_age_s=float(self.realtime_replay_s),
            replay_log_bytes_max=self.realtime_replay_log_bytes,
            replay_memory_bytes_max=self.realtime_replay_memory_bytes,
            # What is longer than a payload may be ends the socket; what is so by little is told.
            frame_bytes_max=max(defaults.frame_bytes_max, self.realtime_payload_bytes + 2_000_000),
        )


class TelemetrySettings(SettingGroup, frozen=True):
    log_format: Annotated[
        Literal["text", "json"], Meta(description="of the log's lines: text, or a JSON object each")
    ] = "text"
    otlp_endpoint: Annotated[
        str | None,
        Meta(
            description="collector that gets spans and metrics of calls to models, as OTLP over"
            " HTTP, up to the /v1; default none"
        ),
    ] = None


class Settings(Struct, frozen=True):
    database: DatabaseSettings
    api: ApiSettings
    ai: AiSettings
    embedder: EmbedderSettings
    documents: DocumentSettings
    stream: StreamSettings
    functions: FunctionsSettings
    telemetry: TelemetrySettings


Values: TypeAlias = Mapping[str, Any]
"""Setting name → value, as text where it comes from a flag or the environment."""


def add_flags(parser: argparse.ArgumentParser, *, only: Collection[str] | None = None) -> None:
    """A flag for each setting, or for some; without it the variable or the file decides."""
    for group in fields(Settings):
        section = parser.add_argument_group(group.name)
        for field in fields(group.type):
            if only is not None and field.name not in only:
                continue
            section.add_argument(
                "--" + field.name.replace("_", "-"),
                default=argparse.SUPPRESS,
                metavar=field.name.rpartition("_")[2].upper(),
                help=_help(field),
            )


def load_settings(flags: Values, environment: Mapping[str, str], file: Path) -> Settings:
    """Raises SettingError, which names the setting that is wrong and where it was read."""
    from_file = _read_file(file)
    known = {field.name for _, field in _all_fields()}
    for name in from_file:
        if name not in known:
            raise SettingError(f"{file}: there is no setting {name}")
    groups: dict[str, dict[str, Any]] = {group.name: {} for group in fields(Settings)}
    for group_name, field in _all_fields():
        value, source = _find(field.name, flags, environment, from_file)
        if source:
            groups[group_name][field.name] = _convert(value, field, source)
    return msgspec.convert(groups, Settings)


def to_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables, for the processes that `up` starts."""
    environment = {}
    for group_name, field in _all_fields():
        value = getattr(getattr(settings, group_name), field.name)
        if value is not None:
            environment[PREFIX + field.name.upper()] = str(value)
    return environment


def _all_fields() -> Iterator[tuple[str, FieldInfo]]:
    for group in fields(Settings):
        for field in fields(group.type):
            yield group.name, field


def _find(
    name: str, flags: Values, environment: Mapping[str, str], from_file: Values
) -> tuple[Any, str]:
    """The value and where it was found; no source when it was not."""
    if name in flags:
        return flags[name], "--" + name.replace("_", "-")
    variables = [PREFIX + name.upper(), *([CUSTOMARY[name]] if name in CUSTOMARY else [])]
    for variable in variables:
        if environment.get(variable):
            return environment[variable], variable
    if name in from_file:
        return from_file[name], f"{name} in {FILE}"
    return None, ""


def _convert(value: Any, field: FieldInfo, source: str) -> Any:
    try:
        return msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(f"{source}: {error}") from None


def _read_file(file: Path) -> Values:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file} cannot be read: {error}") from None


def _help(field: FieldInfo) -> str:
    info = msgspec.inspect.type_info(field.type)
    description = _description(info)
    default = field.default
    shown = f" (default {default})" if default not in (None, msgspec.NODEFAULT) else ""
    return f"{description}{shown} [{PREFIX}{field.name.upper()}]".replace("%", "%%")


def _description(info: Any) -> str:
    schema = getattr(info, "extra_json_schema", None) or {}
    return str(schema.get("description", ""))
