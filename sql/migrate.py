"""Migrations: numbered SQL files, applied once, in order, one transaction each.

A file's name and SHA-256 are kept with what it did. A file that changed after it was applied, or
that is gone, is refused by name, and so is one that sorts before the last applied.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, sql
from psycopg.pq import TransactionStatus

from butterbase.sql.errors import MigrationError

_LOCK = 0x62757474  # "butt": one migrator at a time in a database


class Migration(Struct, frozen=True):
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(folder: Traversable | Path) -> list[Migration]:
    """The folder's `*.sql` files by name. Raises MigrationError when it is no folder."""
    if not folder.is_dir():
        raise MigrationError(f"{folder} is not a directory of migrations")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    try:
        return [Migration(f.name, f.read_text(encoding="utf-8")) for f in files]
    except UnicodeDecodeError as error:
        raise MigrationError(f"a migration in {folder} is not UTF-8 text") from error


def pending(migrations: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """What is still to apply, given name → checksum of what was. Raises MigrationError."""
    by_name = {m.name: m for m in migrations}
    for name, checksum in sorted(applied.items()):
        if name not in by_name:
            raise MigrationError(f"{name} was applied and is missing now", hint="restore the file")
        if by_name[name].checksum != checksum:
            raise MigrationError(
                f"{name} was changed after it was applied",
                hint="restore it, and write the change as a new migration",
            )
    last = max(applied, default="")
    waiting = [m for m in migrations if m.name not in applied]
    for migration in waiting:
        if migration.name < last:
            raise MigrationError(
                f"{migration.name} sorts before {last}, which is applied", hint="renumber it"
            )
    return waiting


async def migrate(
    conn: AsyncConnection, migrations: Sequence[Migration], *, table: str = "migrations"
) -> list[str]:
    """Bring a database up to date; answer the names applied now. `conn` is in autocommit mode.

    `table` (in schema butterbase) remembers them; our own is made when missing.
    Raises MigrationError; the failed migration has left nothing behind.
    """
    assert conn.autocommit
    log = sql.Identifier("butterbase", table)
    await conn.execute("select pg_advisory_lock(%s)", [_LOCK])
    try:
        if table == "migrations":
            await _make_log(conn, log)
        cursor = await conn.execute(sql.SQL("select name, checksum from {}").format(log))
        waiting = pending(migrations, dict(await cursor.fetchall()))
        for migration in waiting:
            await _apply(conn, migration, log)
        return [m.name for m in waiting]
    finally:
        if not conn.closed:
            await conn.execute("select pg_advisory_unlock(%s)", [_LOCK])


async def _make_log(conn: AsyncConnection, log: sql.Identifier) -> None:
    await conn.execute("create schema if not exists butterbase")
    await conn.execute(
        sql.SQL(
            "create table if not exists {} (name text primary key, checksum text not null, "
            "applied_at timestamptz not null default now())"
        ).format(log)
    )


async def _apply(conn: AsyncConnection, migration: Migration, log: sql.Identifier) -> None:
    record = sql.SQL("insert into {} (name, checksum) values (%s, %s)").format(log)
    await conn.execute("begin")
    try:
        # The text of a migration is the developer's own SQL: that it is run is its purpose.
        await conn.execute(migration.text.encode())
        if conn.info.transaction_status != TransactionStatus.INTRANS:
            raise MigrationError(
                f"{migration.name} ends its transaction; a migration is one transaction"
            )
        await conn.execute(record, [migration.name, migration.checksum])
        await conn.execute("commit")
    except psycopg.Error as error:
        raise MigrationError(
            f"{migration.name}: {_describe(error)}", hint=error.diag.message_hint
        ) from error
    finally:
        await _roll_back(conn)


async def _roll_back(conn: AsyncConnection) -> None:
    """End what is left of a failed transaction."""
    if not conn.closed and conn.info.transaction_status != TransactionStatus.IDLE:
        await conn.execute("rollback")


def _describe(error: psycopg.Error) -> str:
    """One line: message and, where Postgres tells it, the detail."""
    parts = (error.diag.message_primary or str(error), error.diag.message_detail)
    return ". ".join(part.strip().replace("\n", " ") for part in parts if part)
