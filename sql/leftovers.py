"""What is left of an embedded Postgres whose supervisor was killed, or which was killed itself."""

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

from butterbase.sql.errors import SettingError
from butterbase.sql.unprivileged import run

logger = logging.getLogger(__name__)

STOPPED_WITHIN_S = 60.0


def stop_leftover(data_dir: Path) -> None:
    """Stop the server that a killed supervisor left on the data, and the sessions of a killed one.

    The caller holds the lock, so no living supervisor owns that server. Raises SettingError.
    """
    if _stop_server(data_dir):
        _end_sessions(data_dir)


def _stop_server(data_dir: Path) -> bool:
    """Whether none is left, as far as can be told: else Postgres itself refuses to start."""
    pid_file = data_dir / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().partition("\n")[0])
    except (FileNotFoundError, ValueError):
        return True
    arguments = _command_line(pid)
    if not arguments:
        return True  # nobody has that number
    if Path(arguments[0]).name != "postgres":
        # Another program got the number after a crash. If it is of the server's user, Postgres
        # would take it for a server and not start.
        pid_file.unlink(missing_ok=True)
        return True
    if str(data_dir) not in arguments:
        return False  # whether that one is on our data, Postgres sees from its shared memory
    logger.warning("stopping Postgres %d, which was left running on %s", pid, data_dir)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while _command_line(pid) == arguments:
        if time.monotonic() > deadline:
            raise SettingError(f"Postgres {pid} on {data_dir} does not stop; stop it by hand")
        time.sleep(0.02)
    return True


def _command_line(pid: int) -> list[str]:
    """A process's arguments: none when it is gone, an empty first one when it is a zombie."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return os.fsdecode(text).split("\0")
    else:  # noqa: RET505  mypy checks one branch per platform
        try:
            return run(["ps", "-o", "command=", "-p", str(pid)]).split()
        except SettingError:
            return []


def _end_sessions(data_dir: Path) -> None:
    """End the sessions that have outlived their server: those amid a query hear of it last.

    Until they are gone nothing else starts on the data, since they work in what was its shared
    memory. https://www.postgresql.org/docs/current/server-shutdown.html
    """
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while left := _sessions(data_dir):
        if time.monotonic() > deadline:
            raise SettingError(f"sessions {left} on {data_dir} do not end; end them by hand")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _sessions(data_dir: Path) -> list[int]:
    """None where there is no /proc: there Postgres says itself why it does not start."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is none of ours
            if (process / "cwd").readlink() == data_dir and _is_postgres(int(process.name)):
                found.append(int(process.name))
    return found


def _is_postgres(pid: int) -> bool:
    """A session's title begins with it; until it has one, it has its server's arguments."""
    program = " ".join(_command_line(pid)).partition(" ")[0]
    return Path(program.removesuffix(":")).name == "postgres"
