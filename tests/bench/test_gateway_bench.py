import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.support import calls, gateways
from bench.support.calls import CallLoad
from bench.support.comparison import CELLS, STATED, Cell, Figures
from bench.support.gateways import Target
from bench.support.load import WrongResponseError
from bench.support.provider import CHUNK_COUNT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def provider_port() -> Iterator[int]:
    with gateways.provider_serving() as port:
        yield port


def test_a_run_without_peers_writes_what_it_can_and_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "gateway.json"
    options = ["--part", "load", "memory", "--seconds=0.3", "--rounds=1", "--requests=20"]
    nowhere = ["--litellm", str(tmp_path), "--portkey", str(tmp_path / "portkey")]
    done = subprocess.run(
        [sys.executable, "bench/gateway.py", *options, *nowhere, f"--json={file}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(file.read_text())
    of_loads = [
        f"{name}_{cell.name}_{what}"
        for cell in CELLS
        for name in ("direct", "ours")
        for what in ("rps", "p50_ms", "p99_ms")
        if name == "ours" or not cell.is_ours_alone
    ]
    headline = ["cache_hit_p50_ms", "rss_mb", "chunks_per_s", "memory_before_mb", "memory_after_mb"]
    assert all(metrics[name] > 0 for name in (*of_loads, *headline))
    assert metrics.keys() >= {"added_p50_ms", "stream_added_ms_per_chunk", "chunk_delay_added_ms"}
    assert not any("vs_" in name for name in metrics)
    assert metrics["memory_calls"] >= 20
    assert "booked: all of " in done.stdout
    for name in ("litellm", "portkey"):
        assert f"{name} is not in {tmp_path}" in done.stdout
        assert gateways.INSTALL[name] in done.stdout


@pytest.mark.parametrize("cell", [c for c in CELLS if not c.is_ours_alone], ids=lambda c: c.name)
def test_the_provider_answers_every_kind_of_call(provider_port: int, cell: Cell) -> None:
    found = measure(gateways.direct(provider_port), cell)
    assert found.rps > 0
    assert found.p50_ms <= found.p99_ms
    assert (found.delay_p50_ms is not None) == (cell.kind == "paced")


def measure(target: Target, cell: Cell, seconds: float = 0.6) -> CallLoad:
    return calls.measure(
        cell.request(target),
        port=target.port,
        connection_count=cell.connection_count,
        seconds=seconds,
        is_streamed=cell.is_streamed,
    )


WHOLE = b'{"text": "%b"}' % (b"Tk " * CHUNK_COUNT)
STREAM = b"data: Tk\n\n" * CHUNK_COUNT + b"data: [DONE]\n\n"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """A server whose every answer is this; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: object) -> None:
            pass  # a load that has failed hangs up

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def load_of(status: int, body: bytes, *, is_streamed: bool) -> CallLoad:
    with answering(status, body) as port:
        return measure(gateways.direct(port), Cell("stream" if is_streamed else "whole", 2), 0.2)


@pytest.mark.parametrize(("body", "is_streamed"), [(WHOLE, False), (STREAM, True)])
def test_right_answers_are_counted(body: bytes, *, is_streamed: bool) -> None:
    assert load_of(200, body, is_streamed=is_streamed).asked_count > 0


@pytest.mark.parametrize(
    ("status", "body", "is_streamed"),
    [
        (503, WHOLE, False),
        (200, WHOLE.replace(b"Tk ", b"", 1), False),
        (200, STREAM.replace(b"[DONE]", b"[CUT]"), True),
        (200, STREAM.replace(b"data: Tk\n\n", b"", 1), True),
    ],
    ids=["status", "text", "end", "chunk"],
)
def test_a_wrong_answer_ends_the_load(status: int, body: bytes, *, is_streamed: bool) -> None:
    with pytest.raises(WrongResponseError):
        load_of(status, body, is_streamed=is_streamed)


def test_figures_are_medians_of_what_each_round_compares() -> None:
    figures = Figures()
    targets = {name: Target(name, 1, "/", {}) for name in ("direct", "ours", "litellm", "portkey")}
    rounds: list[dict[str, Any]] = [
        {"direct": (900, 1), "ours": (300, 3), "litellm": (20, 21), "portkey": (200, 2)},
        {"direct": (900, 1), "ours": (100, 2), "litellm": (20, 11), "portkey": (200, 3)},
        {"direct": (900, 2), "ours": (800, 5), "litellm": (20, 12), "portkey": (200, 4)},
    ]
    for round_ in rounds:
        figures.begin_round()
        for cell in CELLS:
            for name, (rps, p50_ms) in round_.items():
                if name == "ours" or not cell.is_ours_alone:
                    delay_ms = p50_ms / 10 if cell.kind == "paced" else None
                    load = CallLoad(rps, p50_ms, 2 * p50_ms, 10, delay_ms)
                    figures.add(cell, targets[name], load, 0.5)
    metrics = figures.metrics()
    assert metrics["rps_vs_litellm"] == 15
    assert metrics["rps_vs_portkey"] == metrics["streams_vs_portkey"] == 1.5
    assert metrics["added_p50_vs_litellm"] == pytest.approx(0.1)  # of 2/20, 1/10 and 3/10
    assert metrics["stream_added_ms_per_chunk"] == pytest.approx(2 / CHUNK_COUNT)
    assert metrics["chunk_delay_added_ms"] == pytest.approx(0.2)
    assert metrics["cache_hit_p50_ms"] == 3
    assert metrics[f"ours_whole_c{STATED}_rps"] == 300
    assert metrics["chunks_per_s"] == 300 * CHUNK_COUNT
