"""The stream: changes a second through the log's reader, frames a second to many sockets, what it
costs to find out who may see a change, and how long it takes to reach them; beside peers in the
same run.

docs/benchmarks.md says how to read the figures.
"""

import argparse
import json
from pathlib import Path

from support import decode, fanout, latency, machine, rls

PARTS = ("decode", "fanout", "rls", "latency")


def main() -> None:
    arguments = _parser().parse_args()
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("Postgres, its clients and ours share the cores; none is pinned")
    metrics: dict[str, float] = {}
    if "decode" in arguments.part:
        metrics |= decode.measure(arguments.changes, arguments.rounds, arguments.large)
    if "fanout" in arguments.part:
        metrics |= fanout.measure(arguments.sockets, arguments.frames, arguments.rounds)
    if "rls" in arguments.part:
        metrics |= rls.measure(arguments.rls_changes, arguments.walrus)
    if "latency" in arguments.part:
        metrics |= latency.measure(arguments.seconds)
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name} {value:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    of_decode = parser.add_argument_group("decode")
    of_decode.add_argument("--changes", type=int, default=300_000)
    of_decode.add_argument(
        "--large", type=int, default=0, metavar="ROWS", help="also one transaction of so many rows"
    )
    of_fanout = parser.add_argument_group("fanout")
    of_fanout.add_argument(
        "--sockets",
        type=int,
        nargs="+",
        default=fanout.SOCKET_COUNTS,
        metavar="N",
        help="default 1000 10000",
    )
    of_fanout.add_argument(
        "--frames",
        type=int,
        default=fanout.FRAME_COUNT,
        help="over all sockets (default %(default)s)",
    )
    of_rls = parser.add_argument_group("rls")
    of_rls.add_argument("--rls-changes", type=int, default=50_000)
    of_rls.add_argument(
        "--walrus", type=Path, metavar="DIR", help="a checkout of supabase/walrus, to run beside"
    )
    parser.add_argument_group("latency").add_argument("--seconds", type=int, default=20)
    return parser


if __name__ == "__main__":
    main()
