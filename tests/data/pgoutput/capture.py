"""Writes NAME.hex beside each NAME.sql: what pgoutput says of the statements below `-- capture`.

One message per line. Run on a scratch server of Postgres 16 or newer with wal_level=logical and
max_prepared_transactions above 0:

    python tests/data/pgoutput/capture.py 'host=127.0.0.1 port=5432 user=postgres'
"""

import re
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

SLOT = "capture"


def capture(dsn: str, script: str) -> list[bytes]:
    before, given, after = re.split(r"^-- capture(.*)\n", script, maxsplit=1, flags=re.MULTILINE)
    options = dict(option.split("=") for option in given.replace("with", "").split())
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("drop database if exists capture with (force)")
        conn.execute("create database capture")
    with psycopg.connect(make_conninfo(dsn, dbname="capture"), autocommit=True) as conn:
        conn.execute("set debug_logical_replication_streaming = immediate")
        run(conn, before)
        conn.execute("create publication capture for all tables")
        conn.execute(
            "select pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)",
            [SLOT, options.pop("two_phase", "false") == "true"],
        )
        try:
            run(conn, after)
            arguments = {
                "proto_version": "4",
                "publication_names": "capture",
                "messages": "true",
                **options,
            }
            rows = conn.execute(
                "select data from pg_logical_slot_get_binary_changes(%s, null, null, variadic %s)",
                [SLOT, [text for option in arguments.items() for text in option]],
            ).fetchall()
        finally:
            conn.execute("select pg_drop_replication_slot(%s)", [SLOT])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("drop database capture")
    return [data for (data,) in rows]


def run(conn: psycopg.Connection, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            conn.execute(statement)


if __name__ == "__main__":
    for path in Path(__file__).parent.glob("*.sql"):
        messages = capture(sys.argv[1], path.read_text())
        path.with_suffix(".hex").write_text("".join(f"{message.hex()}\n" for message in messages))
