"""Who sees a change: what it costs to find out, and how long it takes to reach them.

docs/benchmarks.md says how to read the figures.
"""

import argparse
import json
from pathlib import Path

from support import latency, machine, rls

PARTS = ("rls", "latency")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--changes", type=int, default=50_000, help="of the rls part")
    parser.add_argument("--seconds", type=int, default=20, help="of the latency part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    metrics: dict[str, float] = {}
    if "rls" in arguments.part:
        metrics |= rls.measure(arguments.changes)
    if "latency" in arguments.part:
        metrics |= latency.measure(arguments.seconds)
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name} {value:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
