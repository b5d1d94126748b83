"""The AI gateway beside LiteLLM's proxy and Portkey's gateway, in front of the same provider.

Each is one process that answers calls; ours also verifies a user's token, reserves and settles two
budgets and writes an event for every call, and its stream process and Postgres run on the same
cores. Rounds of all alternate, so that what else the machine does meets each of them.
docs/benchmarks.md says how to read the figures.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support import calls, endurance, gateways, machine
from support.comparison import CELLS, NAMES, WARM_UP_CELLS, Cell, Figures
from support.gateways import Target
from support.installation import Api, Installation, installed, serving, streaming

from butterbase.cli.setup import publish

PARTS = ("load", "memory")
BOOKED_WITHIN_S = 120.0
PRIVATE = {"BUTTERBASE_AI_PRIVATE_BASE_URLS": "true"}
"""The provider is on this machine."""


class Bench:
    """A running installation in front of a provider."""

    def __init__(self, installation: Installation, api: Api, provider_port: int) -> None:
        self.installation = installation
        self.api = api
        self.provider_port = provider_port
        self.ours = gateways.ours(api, installation, provider_port)
        self.asked_count = 0

    def measure(self, target: Target, cell: Cell, seconds: float) -> tuple[calls.CallLoad, float]:
        """The load, and processor milliseconds of the gateway for each call."""
        before_s = 0.0 if target.pid is None else machine.cpu_s(target.pid)
        found = calls.measure(
            cell.request(target),
            port=target.port,
            connection_count=cell.connection_count,
            seconds=seconds,
            is_streamed=cell.is_streamed,
        )
        after_s = 0.0 if target.pid is None else machine.cpu_s(target.pid)
        if target is self.ours:
            self.asked_count += found.asked_count
        return found, (after_s - before_s) * 1000 / found.asked_count

    def check_books(self) -> None:
        """Raises RuntimeError unless each call that was made is in the books, once."""
        deadline_s = time.monotonic() + BOOKED_WITHIN_S
        while True:
            count, cost = gateways.booked(self.api, self.installation)
            if count == self.asked_count:
                print(f"booked: all of {count} calls, {cost} USD")
                return
            if count > self.asked_count or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.asked_count} calls were made, {count} are in the books")
            time.sleep(0.2)


@contextmanager
def running() -> Iterator[tuple[Bench, int]]:
    """With the stream process's id."""
    with installed() as installation, gateways.provider_serving() as provider_port:
        asyncio.run(publish(installation.cluster, installation.app))
        with (
            streaming(installation) as (_, stream_pid),
            serving(installation, PRIVATE) as api,
        ):
            yield Bench(installation, api, provider_port), stream_pid


@contextmanager
def peers(folders: dict[str, Path | None], provider_port: int) -> Iterator[list[Target]]:
    """Those that are installed."""
    starters = {"litellm": gateways.litellm_serving, "portkey": gateways.portkey_serving}
    with ExitStack() as stack:
        found = []
        for name, start in starters.items():
            folder = folders[name]
            if folder is None or not gateways.is_installed(name, folder.absolute()):
                where = "is not there" if folder is None else f"is not in {folder}"
                print(f"{name} {where}, its figures are left out ({gateways.INSTALL[name]})")
                continue
            found.append(stack.enter_context(start(folder.absolute(), provider_port)))
        yield found


def load(
    bench: Bench, folders: dict[str, Path | None], seconds: float, rounds: int
) -> dict[str, float]:
    """All rounds; metric → number."""
    figures = Figures()
    with peers(folders, bench.provider_port) as others:
        targets = [gateways.direct(bench.provider_port), bench.ours, *others]
        for target in targets:
            for cell in WARM_UP_CELLS:
                bench.measure(target, cell, seconds)
        for _ in range(rounds):
            figures.begin_round()
            for cell in CELLS:
                for target in targets:
                    if not cell.is_ours_alone or target is bench.ours:
                        figures.add(cell, target, *bench.measure(target, cell, seconds))
        metrics = figures.metrics()
        for target in others:
            assert target.pid is not None
            metrics[f"{target.name}_rss_mb"] = machine.tree_rss_mb(target.pid)
    metrics["rss_mb"] = machine.child_rss_mb(bench.api.pid) or 0
    return metrics


def print_tables(metrics: dict[str, float]) -> None:
    for title, cells in (("whole answers", "whole"), ("streams of 50 chunks", "stream")):
        if f"ours_{cells}_c1_rps" not in metrics:
            continue
        print(f"\n{title}")
        print("           connections      rps   p50 ms   p99 ms   CPU ms")
        for cell in CELLS:
            for name in NAMES:
                key = f"{name}_{cell.name}"
                if cell.kind == cells and f"{key}_rps" in metrics:
                    rps, p50, p99, cpu = (
                        metrics[f"{key}_{what}"] for what in ("rps", "p50_ms", "p99_ms", "cpu_ms")
                    )
                    print(
                        f"{name:9}  {cell.connection_count:11}  {rps:7.0f}  {p50:7.2f}"
                        f"  {p99:7.2f}  {cpu:7.2f}"
                    )
    print()
    for name, value in metrics.items():
        if not name.startswith(NAMES):
            print(f"{name} {value:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=("load",), help="default load")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    for name in gateways.INSTALL:
        variable = f"BENCH_{name.upper()}"
        parser.add_argument(
            f"--{name}",
            type=Path,
            default=os.environ.get(variable),
            metavar="DIR",
            help=f"where it is installed, also as {variable}",
        )
    parser.add_argument(
        "--requests", type=int, default=200_000, help="of the memory part (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.rounds < 1:
        parser.error("--seconds must be more than 0 and --rounds at least 1")
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("gateways, Postgres, provider and load generator share the cores; nothing is pinned")
    folders = {name: getattr(arguments, name) for name in gateways.INSTALL}
    metrics: dict[str, float] = {}
    with running() as (bench, stream_pid):
        if "load" in arguments.part:
            metrics |= load(bench, folders, arguments.seconds, arguments.rounds)
        if "memory" in arguments.part:
            metrics |= endurance.measure(
                lambda cell, seconds: bench.measure(bench.ours, cell, seconds)[0].asked_count,
                arguments.requests,
                api_pid=bench.api.pid,
                stream_pid=stream_pid,
            )
        bench.check_books()
    print(f"load average after {machine.load_average()}")
    print_tables(metrics)
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
