"""The embedded server, on data directories in a directory that, made by root, is root's alone."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.sql.embedded import EmbeddedPostgres, locate_binaries
from butterbase.sql.errors import SettingError
from butterbase.sql.unprivileged import Account, last_fault, run, server_account
from tests.conftest import VOLATILE

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

# A supervisor of its own process: a server on argv[1], started from the thread argv[2] names.
SUPERVISOR = f"""
import pathlib, sys, threading, time
from butterbase.sql.embedded import EmbeddedPostgres

def start():
    server = EmbeddedPostgres(pathlib.Path(sys.argv[1]), password="secret", settings={VOLATILE!r})
    server.start()
    print("started", flush=True)
    time.sleep(600)

if sys.argv[2] == "main":
    start()
else:
    threading.Thread(target=start).start()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase tests-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data directory for all tests that leave it as good as new; making one takes 0.5 s."""
    with tempfile.TemporaryDirectory(prefix="butterbase-tests-") as path:
        server = embedded(Path(path, "pg"))
        server.start()
        server.stop()
        yield server.data_dir


@pytest.fixture
def server(data: Path) -> Iterator[EmbeddedPostgres]:
    """A server, not started."""
    server = embedded(data)
    yield server
    server.stop()


def embedded(data_dir: Path, **settings: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, password="secret", settings=VOLATILE | settings)


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        [row] = conn.execute(query.encode())
        return row[0]


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().split()[0])


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    # An orphan in a container whose first process reaps nobody stays as a zombie, without a cwd.
    while Path(f"/proc/{pid}/exe").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def crash(server: EmbeddedPostgres, number: signal.Signals) -> None:
    os.kill(postmaster(server.data_dir), number)
    deadline = time.monotonic() + 20
    while server.is_running:
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.01)


def wait_until_runs(pid: int) -> None:
    """Until that session is amid a query; its title says so."""
    deadline = time.monotonic() + 20
    while b" DO" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"session {pid} has nothing to do"
        time.sleep(0.01)


def kill_supervisor(data_dir: Path, *, thread: str) -> int:
    """Start a server, kill its supervisor; the server's process."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, data_dir, thread], stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"started\n"
        pid = postmaster(data_dir)
        supervisor.kill()
    return pid


def test_data_port_and_edited_settings_survive_a_restart(server: EmbeddedPostgres) -> None:
    first = server.start()
    running = server.is_running
    with psycopg.connect(first, autocommit=True) as conn:
        conn.execute("create table kept as select 42 as answer")
        server.stop()  # with a session open
    stopped = not server.is_running
    with (server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("max_connections = 50\n")
    second = server.start()
    assert (running, stopped) == (True, True)
    assert second == first
    assert value(second, "select answer from kept") == 42
    assert value(second, "show max_connections") == "50"


def test_the_server_is_ready_for_logical_replication_and_vectors(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    assert value(dsn, "show wal_level") == "logical"
    assert value(dsn, "show max_replication_slots") == "64"
    assert value(dsn, "show max_wal_senders") == "64"
    assert value(dsn, "show max_slot_wal_keep_size") == "4GB"
    assert value(dsn, "show listen_addresses") == "127.0.0.1"
    with psycopg.connect(dsn) as conn:
        conn.execute("create extension vector")
        conn.rollback()


def test_socket_and_tcp_ask_for_the_password(server: EmbeddedPostgres) -> None:
    on_socket = server.start()
    on_tcp = make_conninfo(on_socket, host="127.0.0.1")
    for dsn in (on_socket, on_tcp):
        assert value(dsn, "select current_user::text") == "butterbase"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="guessed")


def test_neither_the_terminal_s_signals_nor_other_readers_reach_the_server(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    assert os.getsid(postmaster(server.data_dir)) != os.getsid(0)
    assert server.data_dir.with_name("pg.log").stat().st_mode & 0o777 == 0o600


def test_a_second_supervisor_is_refused(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    with pytest.raises(SettingError) as refused:
        embedded(server.data_dir).start()
    assert str(refused.value) == f"{server.data_dir} is already in use by process {os.getpid()}"
    assert value(dsn, "select 1") == 1


def test_a_number_in_postmaster_pid_that_another_program_got_is_no_server(
    server: EmbeddedPostgres,
) -> None:
    owner = server.data_dir.stat()
    with subprocess.Popen(["sleep", "600"], user=owner.st_uid) as other:
        pid_file = server.data_dir / "postmaster.pid"
        pid_file.write_text(f"{other.pid}\n{server.data_dir}\n1700000000\n5432\n\n\n\nready\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        try:
            assert value(server.start(), "select 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


def test_the_server_ends_with_its_supervisor(data: Path) -> None:
    wait_until_gone(kill_supervisor(data, thread="main"))


def test_a_server_left_running_is_stopped_and_started_anew(
    server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    # From another thread than main the server outlives its supervisor.
    left = kill_supervisor(server.data_dir, thread="other")
    assert Path(f"/proc/{left}/exe").exists()
    assert value(server.start(), "select 1") == 1
    assert postmaster(server.data_dir) != left
    assert f"stopping Postgres {left}, which was left running" in caplog.text


def test_a_server_that_crashed_recovers(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.start(), autocommit=True) as conn:
        conn.execute("set synchronous_commit = on")
        conn.execute("create table written as select 42 as answer")
        crash(server, signal.SIGQUIT)
    assert value(server.start(), "select answer from written") == 42


def test_a_session_amid_a_query_does_not_keep_a_killed_server_from_starting(
    server: EmbeddedPostgres,
) -> None:
    """It hears of its server's end only when it next waits for something."""
    query = "do $$ declare ends timestamptz := clock_timestamp() + '60 s';"
    query += " begin loop exit when clock_timestamp() > ends; end loop; end $$"
    with closing(psycopg.connect(server.start(), autocommit=True)) as conn:
        busy = conn.info.backend_pid
        conn.pgconn.send_query(query.encode())
        wait_until_runs(busy)
        crash(server, signal.SIGKILL)
        assert Path(f"/proc/{busy}/exe").exists()
        assert value(server.start(), "select 1") == 1
        assert not Path(f"/proc/{busy}/exe").exists()


def test_data_of_postgres_16_is_opened_by_its_own_programs(directory: Path) -> None:
    programs = locate_binaries(16)
    account = server_account(programs / "postgres", directory)
    account.make_directory(directory / "pg")
    account.write_file(directory / "password", "secret")
    initdb = [str(programs / "initdb"), "--no-sync", "--username=butterbase", "--encoding=UTF8"]
    files = [f"--pgdata={directory / 'pg'}", f"--pwfile={directory / 'password'}"]
    run([*account.become, *initdb, *files, "--auth=scram-sha-256"])
    server = embedded(directory / "pg")
    try:
        assert str(value(server.start(), "show server_version")).startswith("16.")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("version", "reason"),
    [("13", "the data is of Postgres 13, the embedded programs are of 16 and 18"), ("x", "'x'")],
)
def test_data_of_another_version_is_refused(directory: Path, version: str, reason: str) -> None:
    data = directory / "pg"
    data.mkdir()
    (data / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(SettingError, match=reason):
        embedded(data).start()
    assert list(data.iterdir()) == [data / "PG_VERSION"]


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(directory: Path) -> None:
    data = directory / "pg"
    data.mkdir()
    (data / "thesis.txt").write_text("precious")
    with pytest.raises(SettingError, match="holds no data of a Postgres"):
        embedded(data).start()
    assert (data / "thesis.txt").read_text() == "precious"
    assert sorted(path.name for path in directory.iterdir()) == ["pg", "pg.lock"]


def test_a_start_that_fails_says_why_and_can_be_tried_again(data: Path) -> None:
    with pytest.raises(SettingError, match=r"FATAL: .*shared_buffers.*pg\.log\)$"):
        embedded(data, shared_buffers="plenty").start()
    server = embedded(data)
    try:
        assert value(server.start(), "select 1") == 1
    finally:
        server.stop()


def test_a_port_in_use_is_refused(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedPostgres(data, password="secret", port=port)
        with pytest.raises(SettingError, match=f"port {port} is in use"):
            server.start()


def test_a_kept_port_that_is_taken_gives_way_to_another(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        data.with_name("pg.port").write_text(f"{port}\n")
        server = embedded(data)
        try:
            assert value(server.start(), "show port") != str(port)
        finally:
            server.stop()


@pytest.mark.parametrize("name", ["d" * 100, "one,two"])
def test_where_the_path_cannot_hold_a_socket_it_is_a_temporary_one(
    directory: Path, name: str
) -> None:
    server = embedded(directory / name / "pg")
    try:
        dsn = server.start()
        sockets = Path(str(conninfo_to_dict(dsn)["host"]))
        assert value(dsn, "select 1") == 1
        assert sockets.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
    assert not sockets.exists()


def test_without_the_wheel_the_error_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"butterbase\[embedded\].*DATABASE_URL"):
        locate_binaries()


@as_root
def test_data_of_another_user_is_refused(server: EmbeddedPostgres) -> None:
    owner = server.data_dir.stat()
    os.chown(server.data_dir, 65534, 65534)
    try:
        with pytest.raises(SettingError, match=r"^\S+ belongs to user 65534.*$"):
            server.start()
    finally:
        os.chown(server.data_dir, owner.st_uid, owner.st_gid)


@as_root
def test_below_a_directory_of_root_s_the_server_may_search_and_nothing_more(
    directory: Path,
) -> None:
    directory.chmod(0o700)
    server = embedded(directory / "pg")  # initdb as well
    try:
        dsn = server.start()
        status = Path(f"/proc/{postmaster(server.data_dir)}/status").read_text()
        assert value(dsn, "select 1") == 1
    finally:
        server.stop()
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(server.data_dir.stat().st_uid)}
    assert fields["Uid"].split()[0] != "0"
    dac_read_search = 1 << 2
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff")} == {dac_read_search}
    assert directory.stat().st_mode & 0o777 == 0o700


@as_root
def test_below_an_open_directory_the_server_has_no_capability(directory: Path) -> None:
    directory.chmod(0o711)
    # Not our own binaries: they may well be in a closed directory.
    become = server_account(Path("/bin/sh"), directory).become
    assert not any("caps" in argument for argument in become)


@as_root
def test_root_that_may_not_become_another_user_is_told_what_to_do(directory: Path) -> None:
    program = (
        "from butterbase.sql.unprivileged import server_account; import pathlib, sys;"
        "server_account(pathlib.Path(sys.argv[1]))"
    )
    without = ["setpriv", "--bounding-set=-setuid,-setgid"]
    done = subprocess.run(
        [*without, sys.executable, "-c", program, directory], capture_output=True, text=True
    )
    assert "Postgres does not run as root" in done.stderr.splitlines()[-1]
    assert "run butterbase as another user" in done.stderr.splitlines()[-1]


def test_another_user_than_root_runs_the_server_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 4321)
    assert server_account(Path("/nowhere")) == Account(1234, 4321, ())


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("LOG:  starting\nFATAL:  no room\nLOG:  shut down\n\n", "FATAL:  no room"),
        ("initdb: error: no\ninitdb: hint: try\n", "initdb: error: no"),
        ("one\ntwo\n", "two"),
        ("", "it gave no reason"),
    ],
)
def test_the_last_fault_of_a_log_is_the_line_that_says_why(log: str, line: str) -> None:
    assert last_fault(log) == line
