"""`butterbase rest` as a user runs it, over a database with nothing of ours in it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

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
from tests.postgres import Database, Databases

SECRET = "a secret of more than 32 characters"

SCHEMA = """
create schema api;
grant usage on schema api to {anon}, {author};
create table api.projects (id int primary key, name text);
insert into api.projects values (1, 'one'), (2, 'two');
grant select on api.projects to {anon};
grant all on api.projects to {author};
"""


@dataclass
class Theirs:
    """A PostgREST user's database: an authenticator and two roles that it may become."""

    database: Database
    authenticator: str
    anon: str
    author: str

    @property
    def dsn(self) -> str:
        return make_conninfo(self.database.dsn, user=self.authenticator, password="x")

    @property
    def variables(self) -> dict[str, str]:
        return {
            "PGRST_DB_URI": self.dsn,
            "PGRST_DB_SCHEMAS": "api",
            "PGRST_DB_ANON_ROLE": self.anon,
            "PGRST_JWT_SECRET": SECRET,
        }

    def run(self, statements: str) -> None:
        names = {name: sql.Identifier(getattr(self, name)) for name in ROLES}
        with psycopg.connect(self.database.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statements).format(**names))

    def token(self, **claims: Any) -> dict[str, str]:
        token = jwt.encode({"role": self.author, **claims}, SECRET, "HS256")
        return {"Authorization": f"Bearer {token}"}


ROLES = ("authenticator", "anon", "author")


@pytest.fixture
def theirs(postgres: Databases, database: Database) -> Iterator[Theirs]:
    found = Theirs(database, *(f"{role} {database.name}" for role in ROLES))
    found.run(
        "create role {anon}; create role {author};"
        " create role {authenticator} login noinherit password 'x' in role {anon}, {author}"
    )
    found.run(SCHEMA)
    yield found
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name))
        )
        connection.execute(
            sql.SQL("create database {}").format(sql.Identifier(database.name))
        )  # the fixture drops it
    found.run("drop role {authenticator}, {anon}, {author}")


@dataclass
class Server:
    """A running `butterbase rest`."""

    directory: Path
    variables: dict[str, str]
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        variables = {
            "PGRST_SERVER_HOST": "127.0.0.1",
            "PGRST_SERVER_PORT": str(self.port),
            "PGRST_ADMIN_SERVER_PORT": str(self.admin_port),
            **self.variables,
        }
        with (self.directory / "out").open("wb") as out, (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [BUTTERBASE, "rest", *self.arguments],
                cwd=self.directory,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, "the admin server answers")

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            self.admin("/live")
        except httpx.TransportError:
            return False
        return True

    def admin(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port}{path}")

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(variables: dict[str, str], *arguments: str) -> Server:
        server = Server(tmp_path, variables, arguments)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.stop()


Serve = Callable[..., Server]


# Serving


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
    assert server.admin("/ready").status_code == 200
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


# Reloading


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


def test_settings_of_the_database_are_read_at_the_start_and_again(
    theirs: Theirs, serve: Serve
) -> None:
    theirs.run(
        "create function public.settings() returns void language sql as"
        " $$ select set_config('pgrst.db_schemas', 'api', true)"
        "         , set_config('pgrst.db_max_rows', '1', true) $$"
    )
    variables = {**theirs.variables, "PGRST_DB_PRE_CONFIG": "public.settings"}
    server = serve({**variables, "PGRST_DB_SCHEMAS": "public"})
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    assert len(server.get("/projects").json()) == 1
    theirs.run(
        "create or replace function public.settings() returns void language sql as"
        " $$ select set_config('pgrst.db_schemas', 'api', true) $$"
    )
    theirs.run("notify pgrst, 'reload config'")
    wait_until(lambda: len(server.get("/projects").json()) == 2, "the setting is gone")


def test_a_configuration_that_is_wrong_at_a_reload_changes_nothing(
    theirs: Theirs, serve: Serve
) -> None:
    server = serve(theirs.variables)
    wait_until(lambda: server.admin("/ready").status_code == 200, "it listens")
    theirs.run("alter role {authenticator} set pgrst.db_tx_end = 'never'")
    theirs.run("notify pgrst, 'reload config'")
    wait_until(lambda: "the configuration stays as it was" in server.log, "it is told")
    assert "pgrst.db_tx_end" in server.log
    assert server.get("/projects").status_code == 200


# A database that is not there


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


# The command line


def test_the_settings_are_printed_as_they_are(theirs: Theirs, tmp_path: Path) -> None:
    theirs.run("alter role {authenticator} set pgrst.db_schemas = 'api, other'")
    done = butterbase("rest", "--dump-config", cwd=tmp_path, **theirs.variables)
    assert done.returncode == 0, done.stderr
    assert 'db-schemas = "api,other"\n' in done.stdout
    assert f'jwt-secret = "{SECRET}"\n' in done.stdout


def test_an_example_is_printed(tmp_path: Path) -> None:
    done = butterbase("rest", "--example", cwd=tmp_path)
    assert 'db-tx-end = "commit"\n' in done.stdout


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


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PGRST_DB_TX_END": "random"}, "PGRST_DB_TX_END"),
        ({"PGRST_JWT_SECRET": "short"}, "at least 32 characters"),
        ({"PGRST_JWT_SECRET": "@nowhere"}, "nowhere cannot be read"),
        ({"PGRST_DB_URI": "nothing of the kind"}, "db-uri"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(
    variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    assert told in refusal(butterbase("rest", cwd=tmp_path, **variables))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    line = refusal(butterbase("rest", "nowhere.conf", cwd=tmp_path))
    assert "nowhere.conf cannot be read" in line


def test_names_that_set_nothing_are_told(theirs: Theirs, serve: Serve) -> None:
    server = serve({**theirs.variables, "PGRST_DB_SHCEMAS": "x", "PGRST_LOG_QUERY": "true"})
    assert "PGRST_DB_SHCEMAS is no setting" in server.log
    assert "log-query has no effect here" in server.log
