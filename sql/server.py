"""Connecting to a Postgres as its administrator, and whether that server will do.

https://www.postgresql.org/docs/current/logicaldecoding-explanation.html
"""

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row

from butterbase.sql.errors import SettingError

MAJORS = range(15, 19)
FREE_MIN = 2
"""Replication slots and WAL senders: one that streams, and one to make or rebuild another."""

PGVECTOR_MIN = (0, 8)
"""With half-precision vectors and index scans that go on until enough is found."""
CONNECT_WITHIN_S = 10

# Our own slots and senders do not count: they must not keep a restart from succeeding.
_FACTS = """
select
  current_setting('server_version_num')::int / 10000 as major,
  current_setting('wal_level') as wal_level,
  current_setting('max_replication_slots')::int as slots,
  (select count(*) from pg_replication_slots
    where coalesce(database, '') !~ '^(butterbase$|app_)') as slots_of_others,
  current_setting('max_wal_senders')::int as senders,
  (select count(*) from pg_stat_activity
    where backend_type = 'walsender'
      and coalesce(datname, '') !~ '^(butterbase$|app_)') as senders_of_others,
  current_user::text as role,
  (select rolsuper from pg_roles where rolname = current_user) as is_superuser,
  (select default_version from pg_available_extensions where name = 'vector') as pgvector
"""


class Server(Struct, frozen=True):
    """What of a server decides whether Butterbase can run on it."""

    major: int
    wal_level: str
    slots: int
    slots_of_others: int
    senders: int
    senders_of_others: int
    role: str
    is_superuser: bool
    pgvector: str | None


async def connect(dsn: str) -> AsyncConnection:
    """An autocommit connection of the administrator. Raises SettingError, without the password."""
    try:
        options = conninfo_to_dict(dsn)
    except psycopg.Error:
        # The parser's message repeats what it could not read, which may be the password.
        raise SettingError(
            "DATABASE_URL is not a connection string;"
            " write postgresql://user:password@host:port/database"
        ) from None
    written = dsn
    if "connect_timeout" not in options:
        dsn = make_conninfo(dsn, connect_timeout=CONNECT_WITHIN_S)
    try:
        return await AsyncConnection.connect(dsn, autocommit=True)
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise SettingError(_why_not(written, str(error))) from None


async def check_server(conn: AsyncConnection) -> None:
    """Raises SettingError with a line per thing that the server lacks."""
    async with conn.cursor(row_factory=class_row(Server)) as cursor:
        server = await (await cursor.execute(_FACTS)).fetchone()
    assert server is not None
    if problems := find_problems(server):
        raise SettingError("\n".join(problems))


def find_problems(server: Server) -> list[str]:
    """A sentence for each thing missing, with its remedy."""
    problems = []
    if server.major not in MAJORS:
        problems.append(
            f"Postgres {server.major} is not supported:"
            f" use a server of version {MAJORS[0]} to {MAJORS[-1]}"
        )
    if server.wal_level != "logical":
        problems.append(
            f"wal_level is {server.wal_level}:"
            " run `alter system set wal_level = logical` and restart Postgres"
        )
    problems += _too_few("max_replication_slots", server.slots, server.slots_of_others)
    problems += _too_few("max_wal_senders", server.senders, server.senders_of_others)
    if not server.is_superuser:
        role = server.role.replace('"', '""')
        problems.append(
            f"role {server.role} is not a superuser, which making roles that bypass row-level"
            f' security takes: run `alter role "{role}" superuser` or connect as a superuser'
        )
    if server.pgvector is None:
        problems.append(
            f"the extension vector is not available: install postgresql-{server.major}-pgvector"
            f" (0.8 or newer) or use the image pgvector/pgvector:pg{server.major}"
        )
    elif _numbers(server.pgvector) < PGVECTOR_MIN:
        problems.append(f"pgvector {server.pgvector} is too old: install 0.8 or newer")
    return problems


def _too_few(setting: str, total: int, taken: int) -> list[str]:
    if total - taken >= FREE_MIN:
        return []
    return [
        f"{setting} is {total} and others take {taken}:"
        f" run `alter system set {setting} = {taken + 64}` and restart Postgres"
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _why_not(dsn: str, message: str) -> str:
    """libpq's reason in one line."""
    if "://" in dsn and dsn.count("@") > 1:
        # What follows the first @ was read as the host, and is named as such.
        return "cannot connect with DATABASE_URL: write a @ in the user or password as %40"
    reason = message.partition("\n")[0]
    for prefix in ("connection failed: ", "connection is bad: "):
        reason = reason.removeprefix(prefix)
    return f"cannot connect with DATABASE_URL: {reason}"
