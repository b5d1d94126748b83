"""One line for each request whose status is worth it, on standard output as PostgREST writes it.

https://docs.postgrest.org/en/stable/references/observability.html#logs
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from butterbase.api.rest.postgrest.config import LogLevel

STATUS_MIN: dict[LogLevel, int] = {"crit": 1000, "error": 500, "warn": 400, "info": 0, "debug": 0}
"""The lowest status that is logged."""


class AccessLog:
    """An ASGI app around another one."""

    def __init__(
        self,
        app: Callable[[Any, Any, Any], Any],
        status_min: int,
        *,
        write: Callable[[str], object] = sys.stdout.write,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._app = app
        self._status_min = status_min
        self._write = write
        self._now = now

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status_min = self._status_min

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] >= status_min:
                self._write(line(scope, message, self._now()))
            await send(message)

        await self._app(scope, receive, watch)


def line(scope: Any, start: Any, now: datetime) -> str:
    """In Apache's combined format; the user is left out."""
    sent, received = dict(start.get("headers", ())), dict(scope["headers"])
    client = (scope.get("client") or ("-",))[0]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    request = f"{scope['method']} {_shown(target)} HTTP/{scope['http_version']}"
    size = _shown(sent.get(b"content-length", b"-"))
    referer, agent = (_shown(received.get(name, b"")) for name in (b"referer", b"user-agent"))
    time = now.strftime("%d/%b/%Y:%H:%M:%S %z")
    return f'{client} - - [{time}] "{request}" {start["status"]} {size} "{referer}" "{agent}"\n'


def _shown(text: bytes) -> str:
    """On one line and inside quotes, whatever a client sends."""
    shown = text.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
