"""WALRUS, the yardstick of row-level security on the stream: Supabase's way to ask Postgres.

Its SQL is not ours and not here: a checkout of it is asked for. Postgres 15 is Debian's, with
postgresql-15-wal2json. https://github.com/supabase/walrus
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, LiteralString, cast

import psycopg
from psycopg import Connection

from butterbase.sql.embedded import free_port
from butterbase.sql.unprivileged import Account, run, server_account

PROGRAMS: Final = Path("/usr/lib/postgresql/15/bin")
WAL2JSON: Final = Path("/usr/lib/postgresql/15/lib/wal2json.so")
SLOT: Final = "walrus"
READY_WITHIN_S: Final = 20.0
CHANGE_COUNTS: Final = {1: 1_000, 100: 400, 1_000: 100}
"""By the number of subscribers."""

_TABLE: Final = """
create table public.messages (
  id bigint primary key, user_id uuid, room text, body text, created_at timestamptz default now());
alter table public.messages enable row level security;
create policy own on public.messages to authenticated using (user_id = auth.uid());
grant select on public.messages to authenticated
"""
_SUBSCRIBE: Final = """
insert into realtime.subscription (subscription_id, entity, claims)
select gen_random_uuid(), 'public.messages',
  jsonb_build_object('role', 'authenticated', 'sub', md5(n::text)::uuid)
from generate_series(1, %s) n
"""
_CHANGE: Final = """
insert into public.messages (id, user_id, room, body)
select n, md5((1 + n %% %(subscribers)s)::text)::uuid, 'room 0', 'a message of usual length'
from generate_series(1, %(changes)s) n
"""
_APPLY: Final = """
select count(*), sum(cardinality(subscription_ids))
from pg_logical_slot_get_changes(%s, null, null,
  'include-pk', '1', 'include-transaction', 'false', 'include-timestamp', 'true',
  'include-type-oids', 'true', 'format-version', '2', 'actions', 'insert,update,delete') log,
lateral realtime.apply_rls(wal := log.data::jsonb, max_record_bytes := 1048576)
  seen (wal, is_rls_enabled, subscription_ids, errors)
"""


def is_there() -> bool:
    return (PROGRAMS / "postgres").exists() and WAL2JSON.exists()


def measure(checkout: Path) -> dict[int, float]:
    """Changes/s by the number of subscribers who are each another user: the query alone."""
    with _serving() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        scripts = [checkout / "sql" / name for name in ("setup.sql", "walrus--0.1.sql")]
        for script in [*scripts, *sorted((checkout / "sql").glob("walrus_migration_*.sql"))]:
            conn.execute(cast("LiteralString", script.read_text()))
        conn.execute(_TABLE)
        return {count: _rate(conn, count, changes) for count, changes in CHANGE_COUNTS.items()}


def _rate(conn: Connection, subscribers: int, changes: int) -> float:
    conn.execute("truncate public.messages, realtime.subscription")
    conn.execute(_SUBSCRIBE, [subscribers])
    conn.execute("select pg_create_logical_replication_slot(%s, 'wal2json')", [SLOT])
    conn.execute(_CHANGE, {"subscribers": subscribers, "changes": changes})
    started_s = time.perf_counter()
    row = conn.execute(_APPLY, [SLOT]).fetchone()
    seconds = time.perf_counter() - started_s
    conn.execute("select pg_drop_replication_slot(%s)", [SLOT])
    if row != (changes, changes):
        raise RuntimeError(f"of {changes} changes for one subscriber each, WALRUS told {row}")
    return changes / seconds


@contextmanager
def _serving() -> Iterator[str]:
    """A server of its own; the conninfo of its superuser."""
    account = server_account(PROGRAMS)
    port = free_port(0)
    with tempfile.TemporaryDirectory(prefix="butterbase-walrus-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        data = directory / "data"
        account.make_directory(data)
        programs = [str(PROGRAMS / program) for program in ("initdb", "postgres")]
        run([*account.become, programs[0], "-D", str(data), "-U", "postgres", "-A", "trust"])
        process = _launch(account, programs[1], data, port)
        try:
            yield _wait_until_ready(f"host=127.0.0.1 port={port} user=postgres dbname=postgres")
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(data, ignore_errors=True)


def _launch(
    account: Account, postgres: str, data: Path, port: int | None
) -> "subprocess.Popen[bytes]":
    options = [f"port={port}", "wal_level=logical", "unix_socket_directories=", "fsync=on"]
    return subprocess.Popen(
        [*account.become, postgres, "-D", str(data), *(f"--{option}" for option in options)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _wait_until_ready(dsn: str) -> str:
    until_s = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return dsn
