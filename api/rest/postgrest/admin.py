"""The admin server: whether this worker lives and is ready, its settings, schema and counts.

It shares the worker and its loop; a request is the admin's when it came in on the admin's address.
https://docs.postgrest.org/en/stable/references/admin_server.html
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.api.rest.postgrest.sources import dump_config
from butterbase.sql.relations.model import SchemaCache

if TYPE_CHECKING:
    from butterbase.api.rest.postgrest.app import PostgrestApp

_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json; charset=utf-8"
HIDDEN = "***"


class Admin:
    """An ASGI app."""

    def __init__(self, app: "PostgrestApp") -> None:
        self._app = app
        config = app.config
        self._address = config.admin_server_unix_socket or config.admin_server_port

    def serves(self, scope: Any) -> bool:
        """Whether the request is for the admin server."""
        address = self._address
        return address is not None and address in (scope.get("server") or ())

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        status, content_type, body = self._answer(scope["path"].rstrip("/"))
        headers = [(b"content-length", b"%d" % len(body))]
        if content_type:
            headers.append((b"content-type", content_type))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if _is_head(scope) else body})

    def _answer(self, path: str) -> tuple[int, bytes, bytes]:
        app = self._app
        match path:
            case "/live":
                return (200 if is_live(app.config) else 500), b"", b""
            case "/ready":
                if not app.is_ready:
                    return 503, b"", b""
                return (200 if is_live(app.config) else 500), b"", b""
            case "/config":
                return 200, _TEXT, dump_config(without_secrets(app.config)).encode()
            case "/schema_cache":
                return 200, _JSON, describe_schema(app.holder.current)
            case "/metrics":
                return 200, _TEXT, _metrics(app).encode()
            case _:
                return 404, b"", b""


def is_live(config: PostgrestConfig) -> bool:
    """Whether clients can connect: of a unix socket, whether its file is still there."""
    path = config.server_unix_socket
    return path is None or Path(path).exists()


def without_secrets(config: PostgrestConfig) -> PostgrestConfig:
    return structs.replace(
        config,
        db_uri=_without_password(config.db_uri),
        jwt_secret=HIDDEN if config.jwt_secret else None,
        app_settings=tuple((name, HIDDEN) for name, _ in config.app_settings),
    )


def _without_password(dsn: str) -> str:
    return make_conninfo(dsn, password=HIDDEN) if conninfo_to_dict(dsn).get("password") else dsn


def describe_schema(cache: SchemaCache | None) -> bytes:
    """As JSON; its form is for people to read and may change. Empty without a cache."""
    if cache is None:
        return b""
    return msgspec.json.encode(
        {
            "tables": list(cache.tables.values()),
            "relationships": _flat(cache.relationships.values()),
            "routines": _flat(cache.routines.values()),
            "representations": [
                {"source": source, "target": target, "function": function}
                for (source, target), function in cache.representations.items()
            ],
            "handlers": list(cache.handlers.values()),
        }
    )


def _flat(groups: Iterable[tuple[object, ...]]) -> list[object]:
    return [one for group in groups for one in group]


def _metrics(app: "PostgrestApp") -> str:
    """https://prometheus.io/docs/instrumenting/exposition_formats/"""
    of_tokens = app.authenticator
    lines = []
    for name, kind, help_, samples in (
        (
            "schema_cache_loads_total",
            "counter",
            "The total number of times the schema cache was loaded",
            {'{status="SUCCESS"}': app.loaded_count, '{status="FAIL"}': app.failed_count},
        ),
        (
            "schema_cache_query_time_seconds",
            "gauge",
            "The time in seconds that the last load of the schema cache took",
            {"": app.load_s},
        ),
        ("db_pool_max", "gauge", "Max pool connections", {"": app.connection_count_max}),
        (
            "jwt_cache_requests_total",
            "counter",
            "The total number of JWT cache lookups",
            {"": of_tokens.lookup_count},
        ),
        (
            "jwt_cache_hits_total",
            "counter",
            "The total number of JWT cache hits",
            {"": of_tokens.hit_count},
        ),
        (
            "jwt_cache_evictions_total",
            "counter",
            "The total number of JWT cache evictions",
            {"": of_tokens.eviction_count},
        ),
    ):
        lines += [f"# HELP pgrst_{name} {help_}", f"# TYPE pgrst_{name} {kind}"]
        lines += [f"pgrst_{name}{labels} {value}" for labels, value in samples.items()]
    return "\n".join([*lines, ""])


def _is_head(scope: Any) -> bool:
    return bool(scope["method"] == "HEAD")
