import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_change_reaches_every_socket_of_the_sink(tmp_path: Path) -> None:
    file = tmp_path / "stream.json"
    options = ["--part", "fanout", "--sockets", "20", "--rounds", "1", "--frames", "400"]
    done = subprocess.run(
        [sys.executable, "bench/stream.py", *options, f"--json={file}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(file.read_text())
    ours = {f"fanout_20_{name}" for name in ("frames_per_s", "p50_ms", "p99_ms", "rss_mb")}
    assert metrics.keys() >= ours
    assert all(metrics[name] > 0 for name in ours)
