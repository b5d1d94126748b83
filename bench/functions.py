"""Functions: what cold and warm calls cost over HTTP, and how long a change takes to its handler.

One api worker and the functions process, over loopback TCP; the pool is the default one. A cold
call is the first one of a function that was deployed and is loaded nowhere. docs/benchmarks.md says
how to read the figures.
"""

import argparse
import asyncio
import json
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from support import load, machine, triggers
from support.cases import Message
from support.installation import Api, Installation, installed, serving
from support.processes import functions_serving
from support.statistics import Load, percentile

from butterbase.cli.setup import set_up

CONNECTION_COUNTS = (1, 16, 64)
COLD_COUNT = 100
EMPTY_COUNT = 30
PAUSE_S = 0.3
"""Between cold calls: the pool boots the next process meanwhile."""
WARM_UP_S = 1.0
READ_WITHIN_S = 30.0

HANDLER = """
export default async function handler(req: Request) {
  const { name } = await req.json();
  return Response.json({ hello: name });
}
"""
BODY = '{"name":"bench"}'
MARKER = '{"hello":"bench"}'


class Target:
    """A running api with functions of one kind."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._client = httpx.Client(
            base_url=api.url,
            headers={"apikey": api.keys.service_role},
            timeout=30,
            trust_env=False,
        )

    def deploy(self, name: str) -> str:
        answer = self._client.post("/v1/main/functions", json={"name": name, "code": HANDLER})
        answer.raise_for_status()
        return name

    def colds(self, names: Sequence[str]) -> list[float]:
        """Milliseconds of the first call of each, ascending, over a connection that is open
        already, as a browser's is. Raises WrongResponseError, OSError.
        """
        samples = []
        with socket.create_connection(("127.0.0.1", self.api.port), READ_WITHIN_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for name in names:
                time.sleep(PAUSE_S)
                samples.append(self._call_ms(connection, name))
        return sorted(samples)

    def _call_ms(self, connection: socket.socket, name: str) -> float:
        """A client library would take as long as all of the rest."""
        asked = self._exchange(name, self.api.keys.service_role)
        response, body = b"", None
        before = time.perf_counter()
        connection.sendall(asked.request)
        while body is None:
            part = connection.recv(65536)
            if not part:
                raise ConnectionError(f"the api hung up on {name}")
            response += part
            body = load.read_body(response)
        taken_s = time.perf_counter() - before
        if asked.marker not in body:
            raise load.WrongResponseError(body.decode(errors="replace"))
        return taken_s * 1000

    def _exchange(self, name: str, key: str) -> load.Exchange:
        message = Message("POST", f"/functions/v1/{name}", body=BODY)
        headers = {"apikey": key, "Content-Type": "application/json"}
        return load.exchange(self.api.port, message, headers, number=0, marker=MARKER)

    def warm(self, name: str, count: int, seconds: float) -> Load:
        sent = self._exchange(name, self.api.keys.anon)
        return load.measure([sent], port=self.api.port, connection_count=count, seconds=seconds)

    def empty_route(self, seconds: float) -> Load:
        """A route of Falcon's that does nothing."""
        sent = load.exchange(self.api.port, Message("GET", "/healthz"), {}, number=0, marker="")
        return load.measure([sent], port=self.api.port, connection_count=1, seconds=seconds)


def run(
    seconds: float, rounds: int, connections: Sequence[int], cold_count: int, empty_count: int
) -> dict[str, float]:
    """Metric → number; of the loads, medians over the rounds."""
    with installed() as installation, ExitStack() as stack:
        asyncio.run(set_up(installation.cluster))
        target = Target(stack.enter_context(serving(installation)))
        metrics = _with_pool(installation, target, seconds, rounds, connections, cold_count)
        with functions_serving(installation, target.api.port, ready=0):
            samples = target.colds([target.deploy(f"empty{n}") for n in range(empty_count)])
        metrics["cold_pool_empty_p50_ms"] = percentile(samples, 50)
        metrics["cold_pool_empty_p99_ms"] = percentile(samples, 99)
    return metrics


def _with_pool(
    installation: Installation,
    target: Target,
    seconds: float,
    rounds: int,
    connections: Sequence[int],
    cold_count: int,
) -> dict[str, float]:
    with functions_serving(installation, target.api.port) as process:
        names = [target.deploy(f"cold{n}") for n in range(cold_count)]
        idle_mb = process.wait_ready()
        samples = target.colds(names)
        metrics = {
            "cold_p50_ms": percentile(samples, 50),
            "cold_p99_ms": percentile(samples, 99),
            "idle_process_pss_mb": idle_mb,
        }
        warm = target.deploy("warm")
        target.warm(warm, 1, WARM_UP_S)
        loads: dict[int, list[Load]] = {count: [] for count in connections}
        empty = []
        for _ in range(rounds):
            empty.append(target.empty_route(seconds).p50_ms)
            for count in connections:
                loads[count].append(target.warm(warm, count, seconds))
        metrics["function_pss_mb"] = process.loaded_mb()
    for count, found in loads.items():
        metrics[f"warm_rps_c{count}"] = statistics.median(each.rps for each in found)
        metrics[f"warm_p50_ms_c{count}"] = statistics.median(each.p50_ms for each in found)
        metrics[f"warm_p99_ms_c{count}"] = statistics.median(each.p99_ms for each in found)
    metrics["empty_route_p50_ms"] = statistics.median(empty)
    metrics["warm_over_route_p50_ms"] = metrics["warm_p50_ms_c1"] - metrics["empty_route_p50_ms"]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each load (default 3)")
    parser.add_argument("--rounds", type=int, default=3, help="medians over them (default 3)")
    parser.add_argument("--cold", type=int, default=COLD_COUNT, help="cold calls (default 100)")
    parser.add_argument(
        "--empty", type=int, default=EMPTY_COUNT, help="the same without a pool (default 30)"
    )
    parser.add_argument(
        "--connections",
        type=int,
        nargs="+",
        default=CONNECTION_COUNTS,
        metavar="N",
        help="at a time (default 1 16 64); the first must be 1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write {metric: number}")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or min(arguments.rounds, arguments.cold, arguments.empty) < 1:
        parser.error("--seconds must be more than 0, and the counts at least 1")
    if arguments.connections[0] != 1 or min(arguments.connections) < 1:
        parser.error("--connections must begin with 1")
    print(f"{machine.describe()}, load average before {machine.load_average()}")
    print("all processes and the load generator share the cores; nothing is pinned")
    metrics = run(
        arguments.seconds,
        arguments.rounds,
        arguments.connections,
        arguments.cold,
        arguments.empty,
    )
    metrics |= triggers.measure(max(1, round(arguments.seconds)))
    print(f"load average after {machine.load_average()}")
    for name, value in metrics.items():
        print(f"{name:28} {value:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
