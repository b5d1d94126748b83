"""`butterbase rest` beside a database of somebody else's, as its clients see it."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.cli.processes import (
    BUTTERBASE,
    DEADLINE_S,
    environment,
    free_port,
    wait_until,
)
from tests.postgres import Database

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


Serve = Callable[..., Server]
