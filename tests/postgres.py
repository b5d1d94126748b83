"""Databases for tests: made on one server, dropped with all that hangs on them."""

import uuid
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo


@dataclass(frozen=True)
class Database:
    name: str
    dsn: str
    """The superuser's, connected to this database."""


class Databases:
    """A server, and the databases of one test run on it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        """The superuser's, connected to the maintenance database."""

    def database(self, name: str) -> str:
        """The superuser's DSN for a database of that name."""
        return make_conninfo(self.dsn, dbname=name)

    def create(self, template: str | None = None) -> Database:
        """A new database, empty or copied from a template that nobody is connected to."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        statement = sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(statement)
        return Database(name, self.database(name))

    def drop(self, name: str) -> None:
        """Drop a database with its sessions and replication slots."""
        identifier = sql.Identifier(name)
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            # First of all: a consumer that the test left running would take its slot again.
            conn.execute(sql.SQL("alter database {} allow_connections false").format(identifier))
            conn.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where database = %s and active_pid is not null",
                [name],
            )
            conn.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s",
                [name],
            )
            conn.execute(sql.SQL("drop database {} with (force)").format(identifier))
