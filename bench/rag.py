"""RAG: how fast text becomes searchable, beside the model alone; how fast and well it is searched,
beside pgvector alone.

docs/benchmarks.md says how to read the figures.
"""

import argparse
import json
from pathlib import Path

from support import indexing, machine, questions

PARTS = ("ingest", "lag", "query", "recall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument(
        "--documents", type=int, default=100, help="of the ingest part, some 8 passages each"
    )
    parser.add_argument("--writes-per-s", type=int, default=50, help="of the lag part")
    parser.add_argument("--seconds", type=int, default=20, help="of the lag part")
    parser.add_argument("--passages", type=int, default=100_000, help="of query and recall")
    parser.add_argument("--questions", type=int, default=200, help="of query and recall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("Postgres, the stream process and the benchmark share the cores; none is pinned")
    metrics: dict[str, float] = {}
    if "ingest" in arguments.part:
        metrics |= indexing.measure_ingest(arguments.documents)
    if "lag" in arguments.part:
        metrics |= indexing.measure_lag(arguments.writes_per_s, arguments.seconds)
    if {"query", "recall"} & set(arguments.part):
        metrics |= questions.measure(
            arguments.passages,
            arguments.questions,
            with_latency="query" in arguments.part,
            with_recall="recall" in arguments.part,
        )
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name} {value:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
