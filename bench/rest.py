"""Requests a second of a one-row REST read under row-level security, beside pgbench.

One api worker answers `GET /rest/v1/notes?id=eq.N` for a signed-up user; pgbench runs the same
transaction as the same role over the same socket. Rounds of both alternate, so that what else the
machine does meets both. docs/benchmarks.md says how to read the figures.
"""

import argparse
import base64
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import psycopg
from support import load, machine, pgbench, wrk
from support.installation import Api, Installation, installed, serving
from support.statistics import Load

from butterbase.sql.claims import AUTHENTICATED
from butterbase.sql.embedded import locate_binaries

CONNECTION_COUNTS = (1, 16, 64)
PGBENCH_COUNTS = (1, 16)  # 64 sessions on a few cores measure the kernel's scheduler
STATED = 16
"""The connections at which the ratio is stated."""

ROW_COUNT = 10_000
"""Rows of the user; as many are another one's, between them."""

STEP = 2
"""The user's ids are the multiples of it."""

WARM_UP_S = 2
PATH = "/rest/v1/notes?select=*&id=eq.%d"

SCHEMA = """
create table notes (
  id bigint primary key,
  user_id uuid not null,
  title text not null,
  is_done boolean not null default false,
  created_at timestamptz not null default now()
);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (user_id = auth.uid());
"""

ROWS = """
insert into notes (id, user_id, title)
select
  n,
  case when mod(n, {step}) = 0 then %(user_id)s::uuid else gen_random_uuid() end,
  'note ' || n
from generate_series(1, {step} * %(row_count)s) n
"""

# What the api makes of the request. It sends these in one round trip, pgbench in four.
BECOME = "select set_config('role', {role}, true), set_config('request.jwt.claims', {claims}, true)"
READ = (
    "select coalesce(json_agg(r), '[]')::text"
    " from (select notes.* from public.notes where notes.id = {id}) r"
)

HttpLoad: TypeAlias = Callable[[int, int], Load]
"""Connections, seconds → what it came to."""


class Target:
    """A user with rows, on a running api."""

    def __init__(self, installation: Installation, api: Api) -> None:
        self.installation = installation
        self.api = api
        token = api.sign_up("reader@example.com")
        payload = token.split(".")[1]
        self.claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
        self.user_id: str = json.loads(self.claims)["sub"]
        self.headers = {  # those that supabase-js sends
            "apikey": api.keys.anon,
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
        }
        with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute(
                ROWS.format(step=STEP).encode(),
                {"user_id": self.user_id, "row_count": ROW_COUNT},
            )
            conn.execute("vacuum analyze notes")
        self._check_rows()

    def _check_rows(self) -> None:
        """The transaction reads what is the user's, and nothing else."""
        values = {"role": AUTHENTICATED, "claims": self.claims}
        with psycopg.connect(self.installation.authenticator_dsn) as conn:
            conn.execute(BECOME.format(role="%(role)s", claims="%(claims)s").encode(), values)
            for note, is_seen in ((STEP, True), (STEP + 1, False)):
                row = conn.execute(READ.format(id="%(id)s").encode(), {"id": note}).fetchone()
                if row is None or (marker(note) in row[0].encode()) is not is_seen:
                    raise RuntimeError(f"the policy does not hold for note {note}: {row}")


def marker(note: int) -> bytes:
    """What only the answer with that note holds."""
    return b'"note %d"' % note


def http_load(target: Target, directory: Path) -> HttpLoad:
    """wrk where it is installed, else our own generator; says which."""
    port = target.api.port
    if program := wrk.find():
        print(f"load by {program}, one thread")
        peer = wrk.Wrk(
            program,
            target.api.url,
            directory / "one_row.lua",
            path=PATH,
            step=STEP,
            count=ROW_COUNT,
            headers=target.headers,
            marker=target.user_id,
        )
        return lambda count, s: peer.measure(connection_count=count, seconds=s)
    print(f"load by our own generator, one process; wrk is not installed ({wrk.INSTALL})")
    exchanges = [
        load.Exchange(load.get(port, PATH % note, target.headers), marker(note))
        for note in range(STEP, STEP * ROW_COUNT + 1, STEP)
    ]
    return lambda count, s: load.measure(exchanges, port=port, connection_count=count, seconds=s)


def same_by_pgbench(target: Target, directory: Path) -> pgbench.Pgbench | None:
    """pgbench with the same transaction; None where it is not installed."""
    program = locate_binaries() / "pgbench"
    if not program.exists():
        print(f"pgbench is not installed, its figures are left out ({pgbench.INSTALL})")
        return None
    script = directory / "one_row.sql"
    lines = [
        f"\\set id {STEP} * random(1, {ROW_COUNT})",
        "begin;",
        BECOME.format(role=":role", claims=":claims") + ";",
        READ.format(id=":id") + ";",
        "commit;",
    ]
    script.write_text("\n".join(lines))
    return pgbench.Pgbench(
        program,
        target.installation.authenticator_dsn,
        script,
        {"role": AUTHENTICATED, "claims": target.claims},
    )


class Figures:
    """What the rounds came to, per number of connections."""

    def __init__(self) -> None:
        self.http: dict[int, list[Load]] = {count: [] for count in CONNECTION_COUNTS}
        self.tps: dict[int, list[float]] = {count: [] for count in CONNECTION_COUNTS}

    def ratios(self, count: int) -> list[float]:
        """Of each round; none without pgbench."""
        pairs = zip(self.http[count], self.tps[count], strict=False)
        return [http.rps / tps for http, tps in pairs]

    def metrics(self) -> dict[str, float]:
        """Medians over the rounds."""
        median, stated = statistics.median, self.http[STATED]
        found = {"one_row_rps": median(one.rps for one in stated)}
        if self.tps[STATED]:
            found["one_row_vs_pgbench"] = median(self.ratios(STATED))
            found["pgbench_tps"] = median(self.tps[STATED])
        for count, loads in self.http.items():
            found[f"one_row_rps_at_{count}"] = median(one.rps for one in loads)
            found[f"one_row_p50_ms_at_{count}"] = median(one.p50_ms for one in loads)
            found[f"one_row_p99_ms_at_{count}"] = median(one.p99_ms for one in loads)
            if self.tps[count]:
                found[f"pgbench_tps_at_{count}"] = median(self.tps[count])
        return found


def run(seconds: int, rounds: int) -> dict[str, float]:
    """All rounds; metric → number."""
    figures = Figures()
    with (
        installed() as installation,
        serving(installation) as api,
        tempfile.TemporaryDirectory() as scratch,
    ):
        target = Target(installation, api)
        http = http_load(target, Path(scratch))
        peer = same_by_pgbench(target, Path(scratch))
        http(max(CONNECTION_COUNTS), min(seconds, WARM_UP_S))
        for _ in range(rounds):
            for count in CONNECTION_COUNTS:
                if peer and count in PGBENCH_COUNTS:
                    figures.tps[count].append(peer.measure(connection_count=count, seconds=seconds))
                figures.http[count].append(http(count, seconds))
        rss_mb = machine.child_rss_mb(api.pid)
    print(f"load average after {machine.load_average()}")
    print_table(figures)
    metrics = figures.metrics()
    if rss_mb is not None:
        metrics["worker_rss_mb"] = rss_mb
        print(f"worker RSS after the load {rss_mb:.0f} MB")
    return metrics


def print_table(figures: Figures) -> None:
    metrics = figures.metrics()
    print("connections  pgbench tps  REST req/s  ratio  p50 ms  p99 ms")
    for count in CONNECTION_COUNTS:
        ratios = figures.ratios(count)
        tps = f"{metrics[f'pgbench_tps_at_{count}']:.0f}" if ratios else "-"
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        print(
            f"{count:11}  {tps:>11}  {metrics[f'one_row_rps_at_{count}']:10.0f}  {ratio:>5}"
            f"  {metrics[f'one_row_p50_ms_at_{count}']:6.2f}"
            f"  {metrics[f'one_row_p99_ms_at_{count}']:6.2f}"
        )
    if ratios := figures.ratios(STATED):
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"one_row_vs_pgbench {statistics.median(ratios):.2f} at {STATED} connections"
            f" of both; rounds: {each}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    if arguments.seconds < 1 or arguments.rounds < 1:
        parser.error("--seconds and --rounds must be at least 1")
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("the worker, Postgres, pgbench and the load generator share the cores; nothing is pinned")
    metrics = run(arguments.seconds, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
