"""The log through ingest, beside pg_recvlogical: both read copies of one replication slot.

`python -m support.decode DSN SLOT READER COUNT` is the consumer, in a process of its own; it prints
its figures as JSON.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import uvloop
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from butterbase.ingest.changes import Commit
from butterbase.ingest.consumer import Consumer
from butterbase.ingest.lsn import LSN
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.sql.embedded import EmbeddedPostgres, locate_binaries

from . import machine

PUBLICATION = "bench"
TABLE = ("public", "notes")
PLUGIN_OPTIONS = {
    "proto_version": "4",
    "publication_names": PUBLICATION,
    "messages": "true",
    "streaming": "on",
}

SCHEMA = """
create table notes (
  id bigint primary key, user_id uuid not null, title text not null, is_done boolean not null,
  amount numeric(12, 2), created_at timestamptz not null
);
create procedure fill(change_count int, per_commit int) language plpgsql as $$
declare first bigint;
begin
  for i in 0 .. change_count / per_commit - 1 loop
    first := (select coalesce(max(id), 0) from notes);
    insert into notes
      select first + g, gen_random_uuid(), 'note ' || g || ' of commit ' || i, false, g * 1.25,
        now()
      from generate_series(1, greatest(1, per_commit * 7 / 10)) g;
    if per_commit >= 10 then
      update notes set is_done = true
        where id > first and id <= first + per_commit * 2 / 10;
      delete from notes
        where id > first + per_commit * 2 / 10 and id <= first + per_commit * 3 / 10;
    end if;
    commit;
  end loop;
end $$
"""

LARGE = """
insert into notes
select -g, gen_random_uuid(), 'note ' || g || ' of many', false, g * 1.25, now()
from generate_series(1, %s) g
"""


class Consumed(Struct, frozen=True):
    """What one run of the consumer came to."""

    seconds: float
    cpu_s: float
    rss_growth_mb: float
    """The most at any time, over what the process held before it connected."""


class _Reader:
    """A projection that does nothing: `reading` has every change decoded, `skipping` wants another
    table.
    """

    def __init__(self, kind: str, count: int) -> None:
        self._table = TABLE if kind == "reading" else ("public", "others")
        self._missing = count
        self.is_done = asyncio.Event()

    async def deliver(self, commit: Commit) -> None:
        self._missing -= len(commit.changes)
        for _ in commit.changes_of(self._table):
            pass
        if self._missing <= 0:
            self.is_done.set()

    def position(self) -> LSN | None:
        return None


async def _consume(dsn: str, slot: str, kind: str, count: int) -> Consumed:
    reader = _Reader(kind, count)
    consumer = Consumer(dsn, slot=slot, publications=[PUBLICATION], readers=[reader])
    before_mb = machine.rss_mb(os.getpid())
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    running = asyncio.create_task(consumer.run())
    done = asyncio.create_task(reader.is_done.wait())
    await asyncio.wait([running, done], return_when=asyncio.FIRST_COMPLETED)
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    await consumer.close()
    running.result()
    return Consumed(seconds, cpu_s, machine.peak_rss_mb(os.getpid()) - before_mb)


class Source:
    """A server whose log holds the same changes for all who read it."""

    def __init__(self, dsn: str, change_count: int, per_commit: int) -> None:
        self._dsn = dsn
        self._conn = psycopg.connect(dsn, autocommit=True)
        self.change_count = change_count
        self._template = self._slot_name()
        asyncio.run(self._capture())
        self._conn.execute("set synchronous_commit = off")
        self._conn.execute("call fill(%s, %s)", [change_count, per_commit])
        self._end()

    def fill_large(self, row_count: int) -> None:
        """One transaction, in a slot of its own."""
        self._conn.execute(sql.SQL("select pg_drop_replication_slot({})").format(self._template))
        self._template = self._slot_name()
        asyncio.run(self._capture())
        self.change_count = row_count
        self._conn.execute("delete from notes where id < 0")
        with self._conn.transaction():
            self._conn.execute(LARGE, [row_count])
        self._end()

    def recvlogical_s(self) -> float:
        """What pg_recvlogical takes to write the log to /dev/null."""
        given = conninfo_to_dict(self._dsn)
        with self._slot() as slot:
            started_s = time.perf_counter()
            subprocess.run(
                [
                    str(locate_binaries() / "pg_recvlogical"),
                    *("--start", f"--slot={slot}", "--no-loop", "--file=/dev/null"),
                    f"--endpos={self._end_lsn}",
                    *(f"--option={name}={value}" for name, value in PLUGIN_OPTIONS.items()),
                    *(f"--host={given['host']}", f"--port={given['port']}"),
                    *(f"--username={given['user']}", f"--dbname={given['dbname']}"),
                ],
                env=dict(os.environ) | {"PGPASSWORD": str(given["password"])},
                check=True,
            )
            return time.perf_counter() - started_s

    def consume(self, kind: str, *, options: Mapping[str, str] | None = None) -> Consumed:
        settings = " ".join(f"-c {name}={value}" for name, value in (options or {}).items())
        dsn = psycopg.conninfo.make_conninfo(self._dsn, options=settings)
        with self._slot() as slot:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "support.decode"),
                    *(dsn, slot, kind, str(self.change_count)),
                ],
                cwd=Path(__file__).parents[1],
                check=True,
                stdout=subprocess.PIPE,
            )
            return msgspec.json.decode(done.stdout, type=Consumed)

    async def _capture(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
            await ensure_publication(conn, PUBLICATION, tables=[TABLE])
            await ensure_slot(conn, self._template)

    def _end(self) -> None:
        row = self._conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        self._end_lsn = row[0]
        # The first message behind the end lets pg_recvlogical see that it is there.
        self._conn.execute("select pg_logical_emit_message(true, 'end', '')")

    @contextmanager
    def _slot(self) -> Iterator[str]:
        slot = self._slot_name()
        self._conn.execute(
            "select pg_copy_logical_replication_slot(%s, %s)", [self._template, slot]
        )
        try:
            yield slot
        finally:
            while not self._is_free(slot):
                time.sleep(0.02)
            self._conn.execute("select pg_drop_replication_slot(%s)", [slot])

    def _is_free(self, slot: str) -> bool:
        row = self._conn.execute(
            "select not active from pg_replication_slots where slot_name = %s", [slot]
        ).fetchone()
        return row == (True,)

    @staticmethod
    def _slot_name() -> str:
        return f"bench_{uuid.uuid4().hex[:8]}"


@contextmanager
def source(change_count: int, per_commit: int) -> Iterator[Source]:
    """A new server. Like every embedded one, but with room for the log of a large transaction."""
    with tempfile.TemporaryDirectory(prefix="butterbase-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # run by root, the server is another user
        server = EmbeddedPostgres(
            directory / "pg", password=uuid.uuid4().hex, settings={"max_slot_wal_keep_size": "-1"}
        )
        try:
            dsn = server.start()
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(SCHEMA)
            yield Source(dsn, change_count, per_commit)
        finally:
            server.stop()


def measure(change_count: int, rounds: int, large_count: int) -> dict[str, float]:
    """Metric → number: medians over rounds in which all peers alternate."""
    metrics: dict[str, float] = {}
    for per_commit, suffix in ((10, ""), (1, "_of_one")):
        with source(change_count, per_commit) as log:
            log.recvlogical_s()  # warms caches
            for name, value in _rounds(log, rounds).items():
                metrics[name + suffix] = value
            if large_count and not suffix:
                metrics |= _large(log, large_count)
    return metrics


def _rounds(log: Source, rounds: int) -> dict[str, float]:
    peers, reading, skipping, cpu_us = [], [], [], []
    for _ in range(rounds):
        peers.append(log.recvlogical_s())
        ours = log.consume("reading")
        reading.append(ours.seconds)
        cpu_us.append(ours.cpu_s / log.change_count * 1e6)
        skipping.append(log.consume("skipping").seconds)
    median = statistics.median
    return {
        "decode_vs_recvlogical": median(p / o for p, o in zip(peers, reading, strict=True)),
        "decode_rows_per_s": median(log.change_count / one for one in reading),
        "decode_unwanted_vs_recvlogical": median(
            p / o for p, o in zip(peers, skipping, strict=True)
        ),
        "decode_recvlogical_rows_per_s": median(log.change_count / one for one in peers),
        "decode_cpu_us_per_row": median(cpu_us),
    }


def _large(log: Source, row_count: int) -> dict[str, float]:
    """One transaction: sent in progress, and sent whole since the server has memory for it."""
    log.fill_large(row_count)
    found = {}
    for name, options in (
        ("streamed", {"logical_decoding_work_mem": "64MB"}),
        ("whole", {"logical_decoding_work_mem": "20GB"}),
    ):
        consumed = log.consume("reading", options=options)
        found[f"decode_large_{name}_rss_growth_mb"] = consumed.rss_growth_mb
        found[f"decode_large_{name}_s"] = consumed.seconds
    return found


if __name__ == "__main__":
    _, dsn, slot, kind, count = sys.argv
    print(json.dumps(msgspec.to_builtins(uvloop.run(_consume(dsn, slot, kind, int(count))))))
