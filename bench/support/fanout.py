"""One change to many: frames/s and the time from the writer to the client, beside nchan.

Every subscriber is another user whom the policy lets see every row, so that one commit is a frame
for each. nchan is posted what our frames hold, as many bytes, and nothing is authorised or read
from a database there. Both send to the same sink (sink.py), in turns; neither is pinned. A change's
time begins before its INSERT is sent, and has its commit in it.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from msgspec import Struct

from butterbase.cli.setup import publish

from . import latency, machine, nchan
from .installation import Installation, installed, streaming
from .statistics import percentile

SOCKET_COUNTS: Final = (1_000, 10_000)
FRAME_COUNT: Final = 200_000
PACED_COUNT: Final = 60
PACED_FRAMES_PER_S: Final = 20_000
"""Of a measurement of time: well below what either can do, or the queue would be measured."""

_SINK: Final = Path(__file__).with_name("sink.py")
_SCHEMA: Final = """
    create table messages (
      id bigint generated always as identity primary key, body text not null);
    create policy everybody on messages for select to authenticated using (true);
"""
_INSERT: Final = "insert into messages (body) values (%s)"
_TOPIC: Final = "realtime:room"
_BODY_BYTES: Final = 200

Send = Callable[[bytes], None]


class Figure(Struct, frozen=True):
    frames_per_s: float
    p50_ms: float
    p99_ms: float
    rss_mb: float


def measure(socket_counts: Sequence[int], frame_count: int, rounds: int) -> dict[str, float]:
    """Print the figures, and answer those that are stated."""
    _raise_limit(max(socket_counts))
    metrics: dict[str, float] = {}
    for count in socket_counts:
        ours, peers = [], []
        for _ in range(rounds):
            ours.append(_ours(count, frame_count))
            if nchan.is_there():
                peers.append(_nchan(count, frame_count))
        metrics |= _described("stream", count, ours)
        if peers:
            metrics |= _described("nchan", count, peers)
            ratios = [a.frames_per_s / b.frames_per_s for a, b in zip(ours, peers, strict=True)]
            metrics[f"fanout_{count}_vs_nchan"] = statistics.median(ratios)
        metrics[f"fanout_{count}_rss_mb"] = max(figure.rss_mb for figure in ours)
    if not nchan.is_there():
        print("nginx with nchan is not here: apt install nginx-light libnginx-mod-nchan")
    return metrics


def _described(name: str, count: int, figures: Sequence[Figure]) -> dict[str, float]:
    frames_per_s = statistics.median(figure.frames_per_s for figure in figures)
    p50_ms = statistics.median(figure.p50_ms for figure in figures)
    p99_ms = statistics.median(figure.p99_ms for figure in figures)
    print(
        f"fan-out {name:7} {count:7,} sockets {frames_per_s:10,.0f} frames/s"
        f"  p50 {p50_ms:6.1f} ms  p99 {p99_ms:6.1f} ms"
        f"  {max(figure.rss_mb for figure in figures):4.0f} MB"
    )
    of = "fanout" if name == "stream" else f"fanout_{name}"
    return {
        f"{of}_{count}_frames_per_s": frames_per_s,
        f"{of}_{count}_p50_ms": p50_ms,
        f"{of}_{count}_p99_ms": p99_ms,
    }


def _ours(count: int, frame_count: int) -> Figure:
    with installed() as installation:
        asyncio.run(publish(installation.cluster, installation.app))
        with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
            conn.execute(_SCHEMA)
            with streaming(installation) as (port, pid):
                asyncio.run(latency.wait_until_ready(installation, port, str(uuid.uuid4())))
                sockets = [_joining(installation) for _ in range(count)]

                def send(body: bytes) -> None:
                    conn.execute(_INSERT, [body.decode()], prepare=True)

                return _measure(port, "Subscribed to PostgreSQL", sockets, frame_count, send, pid)


def _joining(installation: Installation) -> tuple[str, str | None]:
    """The path of a socket of a new user, and its join."""
    token = latency.token_of(installation, str(uuid.uuid4()))
    changes = [{"event": "INSERT", "schema": "public", "table": "messages"}]
    join = ["1", "1", _TOPIC, "phx_join", {"config": {"postgres_changes": changes}}]
    return f"/realtime/v1/websocket?apikey={token}&vsn=2.0.0", json.dumps(join)


def _nchan(count: int, frame_count: int) -> Figure:
    with nchan.serving() as (port, pid):
        sockets: list[tuple[str, str | None]] = [("/sub", None)] * count
        # What stands around the row in a frame of ours.
        around = b" " * (_frame_bytes() - _BODY_BYTES)
        publisher = nchan.Publisher(port)
        return _measure(
            port, None, sockets, frame_count, lambda body: publisher.publish(body + around), pid
        )


def _frame_bytes() -> int:
    """Of a frame of ours."""
    data = {
        "schema": "public",
        "table": "messages",
        "commit_timestamp": "2026-01-02T03:04:05.678Z",
        "type": "INSERT",
        "columns": [{"name": "id", "type": "int8"}, {"name": "body", "type": "text"}],
        "record": {"id": 1_000, "body": " " * _BODY_BYTES},
        "errors": None,
        "position": "0/16B3748/0",
    }
    payload = {"ids": [100_000_000], "data": data}
    message = [None, None, _TOPIC, "postgres_changes", payload]
    return len(json.dumps(message, separators=(",", ":")))


def _measure(
    port: int,
    ready: str | None,
    sockets: Sequence[tuple[str, str | None]],
    frame_count: int,
    send: Send,
    pid: int,
) -> Figure:
    count = len(sockets)
    burst = max(10, frame_count // count)
    with _sinking(port, ready, sockets, burst * count) as sink:
        for _ in range(burst):
            send(_body())
        found = json.loads(sink.readline())
    with _sinking(port, ready, sockets, PACED_COUNT * count) as sink:
        started_s = time.perf_counter()
        for number in range(PACED_COUNT):
            due_s = started_s + number * count / PACED_FRAMES_PER_S
            time.sleep(max(0.0, due_s - time.perf_counter()))
            send(_body())
        taken_ms = json.loads(sink.readline())["taken_ms"]
        rss_mb = machine.rss_mb(pid)
    return Figure(
        found["frames"] / found["seconds"],
        percentile(taken_ms, 50),
        percentile(taken_ms, 99),
        rss_mb,
    )


def _body() -> bytes:
    stamp = b"sent_us=%d;" % (time.time_ns() // 1_000)
    return stamp.ljust(_BODY_BYTES, b".")


@contextmanager
def _sinking(
    port: int, ready: str | None, sockets: Sequence[tuple[str, str | None]], wanted: int
) -> Iterator[Any]:
    """The sink's output, once it is ready."""
    order = {
        "host": "127.0.0.1",
        "port": port,
        "ready": ready,
        "wanted": wanted,
        "sockets": len(sockets),
    }
    process = subprocess.Popen(
        [sys.executable, str(_SINK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        lines = [json.dumps(order), *map(json.dumps, sockets)]
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the sink could not connect")
        yield process.stdout
    finally:
        process.kill()
        process.wait()


def _raise_limit(count: int) -> None:
    """Of open files, which the processes that are started inherit. Raises RuntimeError."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count + 1_000:
        raise RuntimeError(f"{count} sockets need more open files than {most}: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
