"""Whether calls are traced and measured, and where that is sent.

The standard variables decide, or the setting `otlp_endpoint` in the place of
OTEL_EXPORTER_OTLP_ENDPOINT. Nothing of OpenTelemetry is imported unless one of them names a
collector. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from butterbase.sql.errors import SettingError

if TYPE_CHECKING:  # the import is what a server without a collector does not pay for
    from butterbase.ai.telemetry.otel import OpenTelemetry

Signal: TypeAlias = Literal["TRACES", "METRICS"]

_PROTOCOL: Final = "http/protobuf"


class OtlpConfig(Struct, frozen=True):
    """URLs of a collector, of which at least one is there."""

    traces_url: str | None
    metrics_url: str | None


def otlp_config(endpoint: str | None, environment: Mapping[str, str]) -> OtlpConfig | None:
    """None: nothing is to be sent. Raises SettingError."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    config = OtlpConfig(
        _url("TRACES", endpoint, environment), _url("METRICS", endpoint, environment)
    )
    if config.traces_url is None and config.metrics_url is None:
        return None
    if not _is_installed():
        raise SettingError(
            "an OTLP endpoint is set, and OpenTelemetry's SDK is not installed",
            hint="pip install 'butterbase[otlp]', or leave otlp_endpoint and"
            " OTEL_EXPORTER_OTLP_ENDPOINT unset",
        )
    return config


def open_telemetry(config: OtlpConfig) -> "OpenTelemetry":
    """In the process that is to send: threads do not outlive a fork."""
    from butterbase.ai.telemetry.otel import OpenTelemetry

    return OpenTelemetry(config)


def _url(signal: Signal, endpoint: str | None, environment: Mapping[str, str]) -> str | None:
    if environment.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none":
        return None
    name = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    if url := environment.get(name):
        found = url
    elif endpoint:
        name, found = "otlp_endpoint", f"{endpoint.rstrip('/')}/v1/{signal.lower()}"
    else:
        return None
    parts = urlsplit(found)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingError(f"{name} is no http or https URL")
    _check_protocol(signal, environment)
    return found


def _check_protocol(signal: Signal, environment: Mapping[str, str]) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(name):
            if protocol.strip() != _PROTOCOL:
                raise SettingError(
                    f"{name} is {protocol!r}; only {_PROTOCOL} is spoken",
                    hint="collectors take it on port 4318",
                )
            return


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        return False
