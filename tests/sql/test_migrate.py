import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from butterbase.sql.errors import MigrationError
from butterbase.sql.migrate import Migration, migrate, pending, read_migrations
from tests.postgres import Database

FIRST = Migration("0001_first.sql", "create table first (i int); insert into first values (1)")
SECOND = Migration("0002_second.sql", "create table second (i int)")


def applied(*migrations: Migration) -> Mapping[str, str]:
    return {m.name: m.checksum for m in migrations}


def test_what_is_applied_is_not_pending() -> None:
    assert pending([FIRST, SECOND], applied(FIRST)) == [SECOND]


@pytest.mark.parametrize(
    ("migrations", "before", "named"),
    [
        ([Migration(FIRST.name, "select 2")], applied(FIRST), "0001_first.sql was changed"),
        ([SECOND], applied(FIRST, SECOND), "0001_first.sql was applied and is missing"),
        ([FIRST, SECOND], applied(SECOND), "0001_first.sql sorts before 0002_second.sql"),
    ],
)
def test_a_history_that_does_not_fit_is_refused_by_name(
    migrations: list[Migration], before: Mapping[str, str], named: str
) -> None:
    with pytest.raises(MigrationError, match=named):
        pending(migrations, before)


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("0002_b.sql", "0001_a.sql", "notes.txt"):
        (tmp_path / name).write_text("select 1")
    assert [m.name for m in read_migrations(tmp_path)] == ["0001_a.sql", "0002_b.sql"]
    with pytest.raises(MigrationError, match="not a directory"):
        read_migrations(tmp_path / "nowhere")


async def run(database: Database, *migrations: Migration) -> list[str]:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        return await migrate(conn, migrations)


async def fetch(database: Database, query: str) -> object:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        row = await (await conn.execute(query.encode())).fetchone()
        return row and row[0]


async def test_each_migration_is_applied_once(database: Database) -> None:
    assert await run(database, FIRST) == [FIRST.name]
    assert await run(database, FIRST, SECOND) == [SECOND.name]
    assert await run(database, FIRST, SECOND) == []
    assert await fetch(database, "select count(*) from first") == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("create table kept (i int); selekt", "syntax error"),
        ("create table kept (i int); commit", "ends its transaction"),
        ("rollback", "ends its transaction"),
        ("select 1/0", "division by zero"),
    ],
)
async def test_a_failed_migration_is_named_and_not_recorded(
    database: Database, text: str, fault: str
) -> None:
    with pytest.raises(MigrationError, match=f"0002_second.sql.*{fault}"):
        await run(database, FIRST, Migration(SECOND.name, text))
    assert await fetch(database, "select max(name) from butterbase.migrations") == FIRST.name
    assert await run(database, FIRST, SECOND) == [SECOND.name]


async def test_a_failed_migration_leaves_nothing(database: Database) -> None:
    with pytest.raises(MigrationError):
        await run(database, Migration("0001.sql", "create table half (i int); select 1/0"))
    assert await fetch(database, "select to_regclass('half')") is None


async def test_two_migrators_at_once_apply_each_once(database: Database) -> None:
    results = await asyncio.gather(*(run(database, FIRST, SECOND) for _ in range(4)))
    assert sorted(name for names in results for name in names) == [FIRST.name, SECOND.name]
