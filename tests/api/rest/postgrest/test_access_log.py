from datetime import UTC, datetime
from typing import Any

import pytest

from butterbase.api.rest.postgrest.access_log import STATUS_MIN, AccessLog
from butterbase.api.rest.postgrest.config import LogLevel

AT = datetime(2026, 7, 26, 1, 56, 38, tzinfo=UTC)
SCOPE = {
    "type": "http",
    "method": "GET",
    "raw_path": b"/clients",
    "query_string": b"select=id",
    "http_version": "1.1",
    "client": ("127.0.0.1", 4711),
    "headers": [(b"user-agent", b'curl "7"\n')],
}


async def logged(level: LogLevel, status: int, scope: dict[str, Any] = SCOPE) -> list[str]:
    lines: list[str] = []
    sent: list[Any] = []

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"56")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    log = AccessLog(answer, STATUS_MIN[level], write=lines.append, now=lambda: AT)
    await log(scope, None, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return lines


async def test_a_line_has_the_form_of_apaches() -> None:
    (line,) = await logged("info", 200)
    assert line == (
        '127.0.0.1 - - [26/Jul/2026:01:56:38 +0000] "GET /clients?select=id HTTP/1.1" 200 56 ""'
        ' "curl \\"7\\"\\x0a"\n'
    )


async def test_a_client_on_a_unix_socket_has_no_address() -> None:
    (line,) = await logged("info", 200, {**SCOPE, "client": None, "query_string": b""})
    assert line.startswith('- - - [26/Jul/2026:01:56:38 +0000] "GET /clients HTTP/1.1" 200')


@pytest.mark.parametrize(
    ("level", "statuses"),
    [
        ("crit", []),
        ("error", [500, 503]),
        ("warn", [404, 500, 503]),
        ("info", [200, 404, 500, 503]),
        ("debug", [200, 404, 500, 503]),
    ],
)
async def test_the_level_says_which_requests_are_logged(
    level: LogLevel, statuses: list[int]
) -> None:
    assert [s for s in (200, 404, 500, 503) if await logged(level, s)] == statuses
