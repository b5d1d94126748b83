"""The stream: changes a second through the log's reader, and frames a second to many sockets,
beside peers in the same run.

docs/benchmarks.md says how to read the figures.
"""

import argparse
import json
from pathlib import Path

from support import decode, fanout, machine

PARTS = ("decode", "fanout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--changes", type=int, default=300_000, help="of the decode part")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument(
        "--large", type=int, default=0, metavar="ROWS", help="also one transaction of so many rows"
    )
    parser.add_argument(
        "--sockets",
        type=int,
        nargs="+",
        default=fanout.SOCKET_COUNTS,
        metavar="N",
        help="of the fanout part (default 1000 10000)",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=fanout.FRAME_COUNT,
        help="of the fanout part, over all sockets (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("Postgres, its clients and ours share the cores; none is pinned")
    metrics: dict[str, float] = {}
    if "decode" in arguments.part:
        metrics |= decode.measure(arguments.changes, arguments.rounds, arguments.large)
    if "fanout" in arguments.part:
        metrics |= fanout.measure(arguments.sockets, arguments.frames, arguments.rounds)
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name} {value:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
