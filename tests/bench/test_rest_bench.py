import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.support.cases import Message
from bench.support.load import Exchange, WrongResponseError, exchange, measure, read_body
from bench.support.pgbench import parse_tps
from bench.support.statistics import percentile
from bench.support.wrk import parse_report

ROOT = Path(__file__).parents[2]
ROOT_PAGE = Message("GET", "/")
RESPONSE = b"HTTP/1.1 200 OK\r\ndate: today\r\nContent-Length: 5\r\nvary: x\r\n\r\nhello"


def test_a_run_of_a_second_writes_every_metric(tmp_path: Path) -> None:
    file = tmp_path / "rest.json"
    # Eight of those clients stop while 160 MB wait for them.
    options = ["--seconds=1", "--rounds=1", "--cases", "one_row", "--big-clients=16"]
    options.append(f"--json={file}")
    done = subprocess.run(
        [sys.executable, "bench/rest.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(file.read_text())
    at = [
        f"one_row_{who}{name}_at_{count}"
        for who in ("", "fastapi_")
        for name in ("rps", "p50_ms", "p99_ms")
        for count in (1, 16, 64)
    ]
    headline = ["one_row_vs_pgbench", "one_row_vs_fastapi", "one_row_p50_ms_c1"]
    assert metrics.keys() >= {*at, *headline, "one_row_pgbench_tps_at_16"}
    assert all(value > 0 for value in metrics.values())
    assert metrics["one_row_vs_pgbench"] == pytest.approx(
        metrics["one_row_rps_at_16"] / metrics["one_row_pgbench_tps_at_16"]
    )
    assert "one_row_vs_pgbench" in done.stdout
    if sys.platform == "linux":
        for name in ("big_rows", "big_row"):
            assert metrics[f"{name}_rss_peak_mb"] < metrics[f"{name}_rss_before_mb"] + 100


def test_a_response_is_read_when_its_last_byte_is_there() -> None:
    assert all(read_body(RESPONSE[:end]) is None for end in range(len(RESPONSE)))
    assert read_body(RESPONSE) == b"hello"


@pytest.mark.parametrize(
    "response",
    [
        RESPONSE.replace(b"200 OK", b"401 Unauthorized"),
        RESPONSE.replace(b"200 OK", b"204 No Content"),
        RESPONSE.replace(b"Content-Length: 5", b"transfer-encoding: chunked"),
        RESPONSE + b"more",
    ],
)
def test_another_response_is_an_error(response: bytes) -> None:
    with pytest.raises(WrongResponseError):
        read_body(response)


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def hello_port() -> Iterator[int]:
    """A server whose every answer is `hello`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_load_counts_answers_that_are_right(hello_port: int) -> None:
    exchanges = [exchange(hello_port, ROOT_PAGE, {}, number=0, marker="hello")]
    found = measure(exchanges, port=hello_port, connection_count=2, seconds=0.1)
    assert found.rps > 0
    assert 0 < found.p50_ms <= found.p99_ms


def test_an_answer_with_another_row_ends_the_load(hello_port: int) -> None:
    exchanges = [exchange(hello_port, ROOT_PAGE, {}, number=0, marker="good day")]
    with pytest.raises(WrongResponseError, match="hello"):
        measure(exchanges, port=hello_port, connection_count=1, seconds=60)


def test_a_request_is_a_message_with_its_id_filled_in() -> None:
    message = Message("POST", "/x?id=eq.%d", '{"id": %d}', {"Prefer": "p"})
    assert exchange(80, message, {"apikey": "k"}, number=7, marker='"%d"') == Exchange(
        b"POST /x?id=eq.7 HTTP/1.1\r\nHost: 127.0.0.1:80\r\napikey: k\r\nPrefer: p\r\n"
        b'Content-Length: 9\r\n\r\n{"id": 7}',
        b'"7"',
    )


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (25, 1.0), (26, 2.0), (50, 2.0), (99, 4.0), (100, 4.0)]
)
def test_a_percentile_is_the_smallest_sample_that_so_many_do_not_exceed(
    percent: float, expected: float
) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected


def test_tps_are_those_without_the_time_to_connect() -> None:
    report = "latency average = 1.9 ms\ntps = 8276.25 (without initial connection time)\n"
    assert parse_tps(report) == 8276.25
    with pytest.raises(RuntimeError, match="no tps"):
        parse_tps("pgbench: nothing")


def test_a_report_of_wrk_with_failed_requests_is_an_error() -> None:
    line = '{"failed": %d, "rps": 2000.5, "p50_ms": 4.5, "p99_ms": 9.25}\n'
    assert parse_report("Running 1s test\n\n" + line % 0).p99_ms == 9.25
    with pytest.raises(RuntimeError, match="3 requests failed"):
        parse_report("Running 1s test\n\n" + line % 3)
