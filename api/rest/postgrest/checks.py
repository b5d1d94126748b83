"""What a setting's type does not say of its value. Pure."""

import re
from urllib.parse import urlsplit

from butterbase.api.rest.header_fields import is_name
from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.sql.errors import SettingError

_UNSERVED_SCHEMAS = ("pg_catalog", "information_schema")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", re.A)
_PARAMETER = re.compile(r"[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*")


def check(config: PostgrestConfig) -> None:
    """Raises SettingError."""
    for schema in _UNSERVED_SCHEMAS:
        if schema in config.db_schemas:
            raise SettingError(f"db-schemas does not allow schema: '{schema}'")
    if config.admin_server_port == config.server_port:
        raise SettingError(
            "admin-server-port cannot be the same as server-port",
            hint="choose another port for the admin server",
        )
    if config.jwt_aud and ":" in config.jwt_aud and not _URI.fullmatch(config.jwt_aud):
        raise SettingError(f"jwt-aud={config.jwt_aud}: this is neither a word nor a valid URI")
    for name, mode in (
        ("server-unix-socket-mode", config.server_unix_socket_mode),
        ("admin-server-unix-socket-mode", config.admin_server_unix_socket_mode),
    ):
        _check_mode(name, mode)
    if config.openapi_server_proxy_uri is not None:
        _check_proxy_uri(config.openapi_server_proxy_uri)
    if config.server_trace_header and not is_name(config.server_trace_header):
        raise SettingError(f"server-trace-header={config.server_trace_header}: not a header's name")
    for name, _ in config.app_settings:
        if not _PARAMETER.fullmatch(name):
            raise SettingError(f"{name}: Postgres knows no parameter of such a name")


def read_boolean(text: str, source: str) -> bool | None:
    """`true` and `false` in any case, or a number, which is true above zero."""
    word = "".join(letter for letter in text if letter.isalpha()).lower()
    if word in ("true", "false"):
        return word == "true"
    if re.fullmatch(r"\s*-?\d+\s*", text):
        return int(text) > 0
    raise SettingError(f"{source}: {text} is not a boolean", hint="use true or false")


def _check_mode(name: str, mode: str) -> None:
    if not re.fullmatch(r"[0-7]+", mode):
        raise SettingError(f"{name}={mode}: this is not octal", hint="use a mode like 660")
    if not 0o600 <= int(mode, 8) <= 0o777:
        raise SettingError(f"{name}={mode}: this is not between 600 and 777")


def _check_proxy_uri(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        is_good = (
            _URI.fullmatch(uri) is not None
            and parts.scheme.lower() in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and not parts.query
            and not parts.fragment
            and parts.port != 0
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise SettingError(
            f"openapi-server-proxy-uri={uri}: this is not an absolute http(s) URL",
            hint="a correct one is https://example.com:8443/basePath",
        )
