"""Requests a second of the REST API, beside pgbench and beside what a team writes by hand.

One api worker serves a signed-up user's requests under row-level security. pgbench runs the same
statements in the same kind of transaction over the same socket; FastAPI with psycopg, one worker
too, answers the same questions. Rounds of all alternate, so that what else the machine does meets
each of them. docs/benchmarks.md says how to read the figures.
"""

import argparse
import asyncio
import base64
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import psycopg
from msgspec import Struct
from support import big, load, machine, pgbench, wrk
from support.cases import CASES, ROW_VALUES, ROWS, SCHEMA, VACUUM, Case, Message
from support.installation import Api, Installation, by_hand_serving, installed, serving
from support.recording import RecordingService
from support.statistics import Load

from butterbase.sql.embedded import locate_binaries

CONNECTION_COUNTS = (1, 16, 64)
PGBENCH_COUNTS = (1, 16)  # 64 sessions on a few cores measure the kernel's scheduler
STATED = 16
"""The connections at which the ratios are stated."""

WARM_UP_S = 2

HttpLoad: TypeAlias = Callable[[int, int], Load]
"""Connections, seconds → what it came to."""


class User(Struct, frozen=True):
    """A signed-up user who has rows."""

    token: str

    @property
    def claims_json(self) -> str:
        payload = self.token.split(".")[1]
        return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()

    def headers(self, api: Api) -> dict[str, str]:
        """Those that supabase-js sends."""
        return {
            "apikey": api.keys.anon,
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json",
        }


class Peers(Struct, frozen=True):
    """Who is measured for one case."""

    case: Case
    rest: HttpLoad
    by_hand: HttpLoad
    pgbench: pgbench.Pgbench | None


class Figures:
    """What the rounds of one case came to, per number of connections."""

    def __init__(self) -> None:
        self.rest: dict[int, list[Load]] = {count: [] for count in CONNECTION_COUNTS}
        self.by_hand: dict[int, list[Load]] = {count: [] for count in CONNECTION_COUNTS}
        self.tps: dict[int, list[float]] = {count: [] for count in CONNECTION_COUNTS}

    def vs_pgbench(self, count: int) -> list[float]:
        """Of each round; none without pgbench."""
        pairs = zip(self.rest[count], self.tps[count], strict=False)
        return [rest.rps / tps for rest, tps in pairs]

    def vs_by_hand(self, count: int) -> list[float]:
        pairs = zip(self.rest[count], self.by_hand[count], strict=True)
        return [rest.rps / other.rps for rest, other in pairs]

    def metrics(self, name: str) -> dict[str, float]:
        """Medians over the rounds; a ratio is taken within its round first."""
        median = statistics.median
        found = {
            f"{name}_vs_fastapi": median(self.vs_by_hand(STATED)),
            f"{name}_p50_ms_c1": median(one.p50_ms for one in self.rest[1]),
        }
        if self.tps[STATED]:
            found[f"{name}_vs_pgbench"] = median(self.vs_pgbench(STATED))
        for count in CONNECTION_COUNTS:
            for who, loads in (("", self.rest[count]), ("fastapi_", self.by_hand[count])):
                found[f"{name}_{who}rps_at_{count}"] = median(one.rps for one in loads)
                found[f"{name}_{who}p50_ms_at_{count}"] = median(one.p50_ms for one in loads)
                found[f"{name}_{who}p99_ms_at_{count}"] = median(one.p99_ms for one in loads)
            if self.tps[count]:
                found[f"{name}_pgbench_tps_at_{count}"] = median(self.tps[count])
        return found


def run(cases: Sequence[Case], seconds: int, rounds: int, *, big_clients: int) -> dict[str, float]:
    """All rounds of all cases, and what so many clients of big answers cost; metric → number."""
    figures = {case.name: Figures() for case in cases}
    metrics: dict[str, float] = {}
    with installed() as installation, tempfile.TemporaryDirectory() as scratch:
        _run_sql(installation, SCHEMA)
        with (
            serving(installation) as api,
            by_hand_serving(installation) as by_hand_port,
        ):
            api.set_auth(jwt_algorithm="HS256")  # which the API written by hand verifies
            user = User(api.sign_up("reader@example.com"))
            _fill(installation, user)
            with _peers(cases, installation, api, user, by_hand_port, Path(scratch)) as peers:
                for one in peers:
                    one.rest(max(CONNECTION_COUNTS), min(seconds, WARM_UP_S))
                    one.by_hand(max(CONNECTION_COUNTS), min(seconds, WARM_UP_S))
                for _ in range(rounds):
                    for one in peers:
                        _measure(one, figures[one.case.name], installation, seconds)
            if (rss_mb := machine.child_rss_mb(api.pid)) is not None:
                metrics["worker_rss_mb"] = rss_mb
            if big_clients:
                metrics |= big.measure(api, user.headers(api), client_count=big_clients)
    for case in cases:
        metrics |= figures[case.name].metrics(case.name)
    return metrics


def _measure(peers: Peers, figures: Figures, installation: Installation, seconds: int) -> None:
    for count in CONNECTION_COUNTS:
        if peers.pgbench and count in PGBENCH_COUNTS:
            _run_sql(installation, peers.case.reset)
            tps = peers.pgbench.measure(connection_count=count, seconds=seconds)
            figures.tps[count].append(tps)
        _run_sql(installation, peers.case.reset)
        figures.rest[count].append(peers.rest(count, seconds))
        _run_sql(installation, peers.case.reset)
        figures.by_hand[count].append(peers.by_hand(count, seconds))


@contextmanager
def _peers(
    cases: Sequence[Case],
    installation: Installation,
    api: Api,
    user: User,
    by_hand_port: int,
    directory: Path,
) -> Iterator[list[Peers]]:
    program = locate_binaries() / "pgbench"
    if not program.exists():
        print(f"pgbench is not installed, its figures are left out ({pgbench.INSTALL})")
    headers = user.headers(api)

    async def scripts() -> list[pgbench.Script]:
        service = RecordingService(installation.authenticator_dsn, user.claims_json)
        try:
            return [await service.script_of(case, headers) for case in cases]
        finally:
            await service.close()

    found = []
    for case, script in zip(cases, asyncio.run(scripts()), strict=True):
        _run_sql(installation, case.reset)
        file = directory / f"{case.name}.sql"
        file.write_text(script.text)
        found.append(
            Peers(
                case,
                _http_load(case, case.rest, api.port, headers, directory / "rest"),
                _http_load(case, case.by_hand, by_hand_port, headers, directory / "by_hand"),
                pgbench.Pgbench(program, installation.authenticator_dsn, file, script.variables)
                if program.exists()
                else None,
            )
        )
    yield found


def _http_load(
    case: Case, message: Message, port: int, headers: dict[str, str], stem: Path
) -> HttpLoad:
    """wrk where it is installed, else our own generator."""
    exchanges = [
        load.exchange(port, message, headers, number=number, marker=case.marker)
        for number in case.ids or (0,)
    ]
    if program := wrk.find():
        common = case.marker.partition("%d")[0]
        script = stem.with_name(f"{stem.name}_{case.name}.lua")
        peer = wrk.Wrk(program, f"http://127.0.0.1:{port}", script, exchanges, marker=common)
        return lambda count, s: peer.measure(connection_count=count, seconds=s)
    return lambda count, s: load.measure(exchanges, port=port, connection_count=count, seconds=s)


def _fill(installation: Installation, user: User) -> None:
    subject = json.loads(user.claims_json)["sub"]
    with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
        for statement in ROWS:
            conn.execute(statement.encode(), ROW_VALUES | {"user_id": subject})
        for table in VACUUM:
            conn.execute(f"vacuum analyze {table}".encode())


def _run_sql(installation: Installation, statements: str) -> None:
    """As the developer."""
    if statements:
        with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
            conn.execute(statements.encode())


def print_tables(cases: Sequence[Case], metrics: dict[str, float]) -> None:
    for case in cases:
        print(f"\n{case.name}: {case.title}")
        print("connections  pgbench tps  REST req/s  p50 ms  p99 ms  FastAPI req/s  p50 ms  p99 ms")
        for count in CONNECTION_COUNTS:
            of = {
                key.removeprefix(f"{case.name}_").removesuffix(f"_at_{count}"): value
                for key, value in metrics.items()
                if key.startswith(f"{case.name}_") and key.endswith(f"_at_{count}")
            }
            tps = f"{of['pgbench_tps']:.0f}" if "pgbench_tps" in of else "-"
            print(
                f"{count:11}  {tps:>11}"
                f"  {of['rps']:10.0f}  {of['p50_ms']:6.2f}  {of['p99_ms']:6.2f}"
                f"  {of['fastapi_rps']:13.0f}"
                f"  {of['fastapi_p50_ms']:6.2f}  {of['fastapi_p99_ms']:6.2f}"
            )
    print()
    for name, value in metrics.items():
        if name.endswith(("_vs_pgbench", "_vs_fastapi", "_c1", "_mb", "_s")):
            print(f"{name} {value:.2f}")
    print(f"ratios are of requests a second at {STATED} connections of each")


def main() -> None:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument("--cases", nargs="+", choices=names, default=names, help="default all")
    parser.add_argument("--without-big", action="store_true", help="leave out the 20 MB answers")
    parser.add_argument(
        "--big-clients",
        type=int,
        default=big.CLIENT_COUNT,
        help=f"that read those at once (default {big.CLIENT_COUNT})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    if arguments.seconds < 1 or arguments.rounds < 1 or arguments.big_clients < 1:
        parser.error("--seconds, --rounds and --big-clients must be at least 1")
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("the workers, Postgres, pgbench and the load generator share the cores; none is pinned")
    generator = wrk.find() or "our own generator, one process"
    print(f"load by {generator}" + ("" if wrk.find() else f"; for wrk: {wrk.INSTALL}"))
    cases = [case for case in CASES if case.name in arguments.cases]
    big_clients = 0 if arguments.without_big else arguments.big_clients
    metrics = run(cases, arguments.seconds, arguments.rounds, big_clients=big_clients)
    print(f"load average after {machine.load_average()}")
    print_tables(cases, metrics)
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
