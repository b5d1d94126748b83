import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.cli.processes import Up
from tests.cli.rest_server import ROLES, SCHEMA, Server, Theirs
from tests.postgres import Database, Databases


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path that Postgres's own user can pass, unlike pytest's."""
    yield from _directory()


@pytest.fixture(scope="session")
def shared_up() -> Iterator[Up]:
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    for directory in _directory():
        up = Up(directory)
        yield up
        if up.is_running:
            assert up.interrupt() == 0


@pytest.fixture
def up(shared_up: Up) -> Up:
    """A running `butterbase up`. A test may stop it; the next one starts it again."""
    if not shared_up.is_running:
        shared_up.start()
    return shared_up


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
        print(server.log)  # noqa: T201  shown when the test fails


def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase-cli-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
