"""Databases for tests: made on one server, dropped with all that hangs on them."""

import gc
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

# The files of a template as they are: its pages would cost twice as much through the log.
_CREATE = "create database {} template {} strategy file_copy"

# Whose a database is, who may connect and what its sessions begin with stay behind with a template.
_LIKE_ITS_TEMPLATE = """
with template as (select * from pg_database where datname = %(template)s),
copied as (
  update pg_database d set datdba = t.datdba, datacl = t.datacl
  from template t where d.datname = %(name)s
  returning d.oid
)
insert into pg_db_role_setting (setdatabase, setrole, setconfig)
select c.oid, s.setrole, s.setconfig
from copied c, template t join pg_db_role_setting s on s.setdatabase = t.oid
"""
_END_SESSIONS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = any(%s)
"""
_DROP_SLOTS = """
select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = any(%s)
"""
# Postgres 18 tells of sessions that are not authenticated yet.
_MAY_BE_CONNECTING = """
select current_setting('server_version_num')::int < 180000
  or exists (select from pg_stat_activity where state = 'starting')
"""
_SESSIONS_END_WITHIN_S = 30.0


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
        self._conn: psycopg.Connection | None = None

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def database(self, name: str) -> str:
        """The superuser's DSN for a database of that name."""
        return make_conninfo(self.dsn, dbname=name)

    def create(self, template: str | None = None) -> Database:
        """A new database, empty or as the template, that nobody is connected to."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        conn = self._maintenance()
        conn.execute(_statement(_CREATE, name, template or "template0"))
        if template is not None:
            conn.execute(_LIKE_ITS_TEMPLATE, {"template": template, "name": name})
        return Database(name, self.database(name))

    def drop(self, *names: str) -> None:
        """Drop databases with their sessions and replication slots."""
        conn = self._maintenance()
        for name in names:
            # First of all: a consumer that the test left running would take its slot again.
            conn.execute(_statement("alter database {} allow_connections false", name))
        if conn.execute(_MAY_BE_CONNECTING).fetchone() == (True,):
            # What was connecting when its test cancelled it hangs on its traceback; and nothing is
            # dropped while there is half a connection, for a minute.
            gc.collect()
        # A session that is still ending would be waited for a tenth of a second at a time.
        deadline = time.monotonic() + _SESSIONS_END_WITHIN_S
        while conn.execute(_END_SESSIONS, [list(names)]).fetchone() != (0,):
            assert time.monotonic() < deadline, "there are sessions that do not end"
            time.sleep(0.002)
        conn.execute(_DROP_SLOTS, [list(names)])
        for name in names:
            conn.execute(_statement("drop database {} with (force)", name))

    def _maintenance(self) -> "psycopg.Connection[Any]":
        """One connection for all of a run, or a new one after the server's restart."""
        if self._conn is not None:
            try:
                self._conn.execute("select")
            except psycopg.OperationalError:
                self.close()
        if self._conn is None:
            self._conn = psycopg.connect(self.dsn, autocommit=True)
        return self._conn


def _statement(text: str, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))
