"""What this stream process tells of itself; see projections/status.py."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from butterbase.projections.status import (
    LogStatus,
    SocketStatus,
    StatusPublisher,
    StreamStatus,
)


def publisher(
    control_dsn: str,
    *,
    is_leading: Callable[[], bool],
    logs: Callable[[], list[LogStatus]],
    sockets: Callable[[], SocketStatus],
) -> StatusPublisher:
    host, pid, started_at = socket.gethostname(), os.getpid(), datetime.now(UTC)

    def read() -> StreamStatus:
        return StreamStatus(
            host=host,
            pid=pid,
            started_at=started_at,
            is_leading=is_leading(),
            rss_bytes=rss_bytes(),
            sockets=sockets(),
            logs=logs(),
        )

    # Containers may share a name, and processes in them an id.
    return StatusPublisher(f"{host}:{pid}:{secrets.token_hex(4)}", control_dsn, read)


def rss_bytes() -> int:
    """Memory that this process has, where the kernel tells it; else 0."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
