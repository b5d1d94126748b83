"""The stream: changes a second through the log's reader, beside peers in the same run.

docs/benchmarks.md says how to read the figures.
"""

import argparse
import json
from pathlib import Path

from support import decode, machine

PARTS = ("decode",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--changes", type=int, default=300_000, help="of the decode part")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument(
        "--large", type=int, default=0, metavar="ROWS", help="also one transaction of so many rows"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("Postgres, its clients and ours share the cores; none is pinned")
    metrics: dict[str, float] = {}
    if "decode" in arguments.part:
        metrics |= decode.measure(arguments.changes, arguments.rounds, arguments.large)
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name} {value:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
