"""What a server must offer: each lack is named with its remedy."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.sql.embedded import EmbeddedPostgres
from butterbase.sql.errors import SettingError
from butterbase.sql.server import Server, check_server, connect, find_problems
from tests.conftest import VOLATILE
from tests.postgres import Databases

GOOD = Server(
    major=18,
    wal_level="logical",
    slots=10,
    slots_of_others=8,
    senders=10,
    senders_of_others=8,
    role="postgres",
    is_superuser=True,
    pgvector="0.8.5",
)


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase-tests-") as path:
        yield Path(path, "pg")


@pytest.fixture
def role(postgres: Databases) -> Iterator[str]:
    """A login role without privileges, password "hunter2"."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    identifier = sql.Identifier(name)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login password 'hunter2'").format(identifier))
        yield name
        conn.execute(sql.SQL("drop role {}").format(identifier))


async def problems(dsn: str) -> list[str]:
    async with await connect(dsn) as conn:
        try:
            await check_server(conn)
        except SettingError as error:
            return str(error).splitlines()
    return []


async def test_the_tests_own_server_lacks_nothing(postgres: Databases) -> None:
    assert await problems(postgres.dsn) == []


def test_free_slots_and_senders_at_the_limit_are_enough() -> None:
    assert find_problems(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"major": 14}, "Postgres 14 is not supported: use a server of version 15 to 18"),
        ({"major": 19}, "Postgres 19 is not supported: use a server of version 15 to 18"),
        (
            {"wal_level": "minimal"},
            "wal_level is minimal: run `alter system set wal_level = logical` and restart Postgres",
        ),
        (
            {"slots_of_others": 9},
            "max_replication_slots is 10 and others take 9:"
            " run `alter system set max_replication_slots = 73` and restart Postgres",
        ),
        (
            {"senders": 1, "senders_of_others": 0},
            "max_wal_senders is 1 and others take 0:"
            " run `alter system set max_wal_senders = 64` and restart Postgres",
        ),
        (
            {"is_superuser": False, "role": 'o"neil'},
            'role o"neil is not a superuser, which making roles that bypass row-level security'
            ' takes: run `alter role "o""neil" superuser` or connect as a superuser',
        ),
        (
            {"pgvector": None},
            "the extension vector is not available: install postgresql-18-pgvector"
            " (0.8 or newer) or use the image pgvector/pgvector:pg18",
        ),
        (
            {"pgvector": "0.7.4"},
            "pgvector 0.7.4 is too old: install 0.8 or newer",
        ),
    ],
)
def test_a_lack_is_named_with_its_remedy(changes: dict[str, object], sentence: str) -> None:
    assert find_problems(msgspec.structs.replace(GOOD, **changes)) == [sentence]


@pytest.mark.parametrize("version", ["0.8.0", "0.10.0", "1.0"])
def test_versions_of_pgvector_compare_as_numbers(version: str) -> None:
    assert find_problems(msgspec.structs.replace(GOOD, pgvector=version)) == []


async def test_every_lack_of_a_server_is_told_at_once(data_dir: Path) -> None:
    lacking = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}
    # Elsewhere there is no vector.control to be found.
    lacking["extension_control_path"] = "/nonexistent"
    server = EmbeddedPostgres(data_dir, password="secret", settings=VOLATILE | lacking)
    try:
        dsn = server.start()
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pg_create_physical_replication_slot('standby')")
        found = await problems(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pg_drop_replication_slot('standby')")
    finally:
        server.stop()
    assert [line.split(":")[0] for line in found] == [
        "wal_level is replica",
        "max_replication_slots is 1 and others take 1",
        "max_wal_senders is 1 and others take 0",
        "the extension vector is not available",
    ]


async def test_slots_of_our_own_databases_leave_room_for_a_restart(data_dir: Path) -> None:
    settings = VOLATILE | {"max_replication_slots": "2"}
    server = EmbeddedPostgres(data_dir, password="secret", settings=settings)
    create_slot = "select pg_create_logical_replication_slot('taken', 'pgoutput')"
    try:
        dsn = server.start()
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("create database app_main")
            with psycopg.connect(dsn, dbname="app_main", autocommit=True) as app:
                app.execute(create_slot)
            ours = await problems(dsn)
            conn.execute("select pg_drop_replication_slot('taken')")
            conn.execute(create_slot)
            theirs = await problems(dsn)
            conn.execute("select pg_drop_replication_slot('taken')")
    finally:
        server.stop()
    assert ours == []
    assert [line.split(":")[0] for line in theirs] == [
        "max_replication_slots is 2 and others take 1"
    ]


async def test_a_role_without_privileges_is_refused(postgres: Databases, role: str) -> None:
    [problem] = await problems(make_conninfo(postgres.dsn, user=role, password="hunter2"))
    assert problem.startswith(f"role {role} is not a superuser")


async def test_a_wrong_password_is_told_without_it(postgres: Databases, role: str) -> None:
    with pytest.raises(SettingError) as refused:
        await connect(make_conninfo(postgres.dsn, user=role, password="hunter3"))
    assert str(refused.value).startswith("cannot connect with DATABASE_URL: ")
    assert f'password authentication failed for user "{role}"' in str(refused.value)
    assert "hunter3" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/x", "127.0.0.1.*port 1.*Connection refused"),
        ("host=/nonexistent user=me password=hunter2", "No such file or directory"),
        ("postgresql://me:hunter2%zz@127.0.0.1/x", "is not a connection string"),
        ("hunter2", "is not a connection string"),
        ("postgresql://me:the@hunter2@127.0.0.1/x", "write a @ in the user or password as %40"),
    ],
)
async def test_an_unreachable_server_is_told_in_one_line_without_the_password(
    dsn: str, reason: str
) -> None:
    with pytest.raises(SettingError, match=reason) as refused:
        await connect(dsn)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_connect_timeout_in_the_dsn_is_kept(postgres: Databases) -> None:
    for dsn, expected in [
        (postgres.dsn, "10"),
        (make_conninfo(postgres.dsn, connect_timeout=3), "3"),
    ]:
        async with await connect(dsn) as conn:
            assert conninfo_to_dict(conn.info.dsn)["connect_timeout"] == expected
            assert conn.autocommit
