"""`butterbase rest` as a user runs it, over a database with nothing of ours in it."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.cli.processes import (
    BUTTERBASE,
    DEADLINE_S,
    butterbase,
    descendants,
    environment,
    free_port,
    refusal,
    wait_until,
)
from tests.cli.rest_server import Serve, Theirs
from tests.postgres import Databases


def test_a_database_is_served_by_postgrests_variables(theirs: Theirs, serve: Serve) -> None:
    server = serve(theirs.variables)
    assert server.get("/projects?select=name&id=eq.2").json() == [{"name": "two"}]
    url = f"http://127.0.0.1:{server.port}/projects"
    assert httpx.post(url, json={"id": 3}).status_code == 401
    assert httpx.post(url, json={"id": 3}, headers=theirs.token()).status_code == 201
    assert httpx.post(url, json={"id": 4}, headers=theirs.token(exp=1)).json() == {
        "code": "PGRST303",
        "message": "JWT expired",
        "details": None,
        "hint": None,
    }
    assert [row["id"] for row in server.get("/projects?order=id").json()] == [1, 2, 3]


def test_a_file_says_the_same(theirs: Theirs, serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "postgrest.conf"
    file.write_text(
        f'db-uri = "{theirs.dsn}"\ndb-schemas = "api"\ndb-anon-role = "{theirs.anon}"\n'
        "db-max-rows = 1 # of two\n"
    )
    server = serve({}, str(file))
    assert len(server.get("/projects").json()) == 1
    file.write_text(file.read_text().replace("db-max-rows = 1", "db-max-rows = 2"))
    server.signal(signal.SIGUSR2)
    wait_until(lambda: len(server.get("/projects").json()) == 2, "the file is read again")


def test_unix_sockets_have_their_modes(theirs: Theirs, serve: Serve, directory: Path) -> None:
    api, admin = directory / "api.sock", directory / "admin.sock"
    server = serve(
        {
            **theirs.variables,
            "PGRST_SERVER_UNIX_SOCKET": str(api),
            "PGRST_SERVER_UNIX_SOCKET_MODE": "606",
        }
    )
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(api))) as client:
        assert client.get("http://here/projects?id=eq.1").json() == [{"id": 1, "name": "one"}]
    wait_until(lambda: api.stat().st_mode & 0o777 == 0o606, "the socket has its mode")
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    api.unlink()
    assert server.admin("/live").status_code == 500
    assert not admin.exists()


def test_both_servers_may_be_on_unix_sockets(
    theirs: Theirs, tmp_path: Path, directory: Path
) -> None:
    api, admin = directory / "api.sock", directory / "admin.sock"
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [BUTTERBASE, "rest"],
            cwd=tmp_path,
            env=environment(
                **theirs.variables,
                PGRST_SERVER_UNIX_SOCKET=str(api),
                PGRST_ADMIN_SERVER_UNIX_SOCKET=str(admin),
            ),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        wait_until(lambda: "read the schema" in log.read_text(), "it listens")
        wait_until(lambda: _status(admin, "/ready") == 200, "the admin server is ready")
        assert _status(admin, "/projects") == 404
        assert _status(api, "/projects") == 200
        assert _status(api, "/ready") == 404
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _status(socket: Path, path: str) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        return client.get(f"http://here{path}").status_code


def test_workers_share_the_connections_that_were_set(theirs: Theirs, serve: Serve) -> None:
    server = serve({**theirs.variables, "PGRST_DB_POOL": "5"}, "--workers", "2")
    assert "pgrst_db_pool_max 2\n" in server.admin("/metrics").text


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_it_ends_when_it_is_told_to_and_leaves_nothing(theirs: Theirs, serve: Serve) -> None:
    server = serve(theirs.variables)
    assert server.process is not None
    children = descendants(server.process.pid)
    assert children
    assert server.stop() == 0
    assert not any(child.is_running for child in children)


def test_a_notification_makes_a_new_table_known(theirs: Theirs, serve: Serve) -> None:
    server = serve(theirs.variables)
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    theirs.run("create table api.clients (id int); grant select on api.clients to {anon}")
    assert server.get("/clients").json()["code"] == "PGRST205"
    theirs.run("notify pgrst, 'reload schema'")
    wait_until(lambda: server.get("/clients").status_code == 200, "the table is known")


def test_a_signal_makes_a_new_table_known(theirs: Theirs, serve: Serve) -> None:
    server = serve({**theirs.variables, "PGRST_DB_CHANNEL_ENABLED": "false"})
    assert server.admin("/ready").status_code == 200
    theirs.run("create table api.clients (id int); grant select on api.clients to {anon}")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: server.get("/clients").status_code == 200, "the table is known")


def test_until_the_database_is_there_requests_are_told_to_try_again(
    theirs: Theirs, serve: Serve, postgres: Databases
) -> None:
    name = theirs.database.name
    there, away = sql.Identifier(name), sql.Identifier(f"{name}_away")
    rename = sql.SQL("alter database {} rename to {}")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(rename.format(there, away))
        try:
            server = serve(theirs.variables)
            answer = server.get("/projects")
            assert (answer.status_code, answer.json()["code"]) == (503, "PGRST002")
            assert int(answer.headers["Retry-After"]) > 0
            assert server.admin("/ready").status_code == 503
            assert server.admin("/live").status_code == 200
        finally:
            connection.execute(rename.format(away, there))
    wait_until(lambda: server.get("/projects").status_code == 200, "the database is found")


def test_without_recovery_a_database_that_is_not_there_ends_it(
    theirs: Theirs, tmp_path: Path
) -> None:
    done = butterbase(
        "rest",
        cwd=tmp_path,
        **{**theirs.variables, "PGRST_DB_URI": "host=127.0.0.1 port=1 dbname=none"},
        PGRST_SERVER_PORT=str(free_port()),
        PGRST_SERVER_HOST="127.0.0.1",
        PGRST_DB_POOL_AUTOMATIC_RECOVERY="false",
    )
    assert "127.0.0.1" in done.stderr


def test_whether_it_is_ready_is_the_status_of_a_command(
    theirs: Theirs, serve: Serve, tmp_path: Path
) -> None:
    server = serve(theirs.variables)
    wait_until(lambda: server.admin("/ready").status_code == 200, "it is ready")
    variables = {"PGRST_ADMIN_SERVER_PORT": str(server.admin_port)}
    assert butterbase("rest", "--ready", cwd=tmp_path, **variables).returncode == 0
    server.stop()
    done = butterbase("rest", "--ready", cwd=tmp_path, **variables)
    assert "/ready" in refusal(done)
