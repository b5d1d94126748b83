import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_run_of_a_moment_writes_every_metric(tmp_path: Path) -> None:
    file = tmp_path / "functions.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/functions.py", "--seconds=0.3", "--rounds=1"),
            *("--cold=2", "--empty=1", f"--json={file}", "--connections", "1", "2"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads(file.read_text())
    loads = {f"warm_{name}_c{count}" for name in ("rps", "p50_ms", "p99_ms") for count in (1, 2)}
    colds = {f"{name}_p{p}_ms" for name in ("cold", "cold_pool_empty") for p in (50, 99)}
    lags = {f"commit_to_handler_p{p}_ms" for p in (50, 90, 99)}
    others = {"idle_process_pss_mb", "function_pss_mb", "empty_route_p50_ms"}
    assert set(metrics) == loads | colds | lags | others | {"warm_over_route_p50_ms"}
    assert all(metrics[name] > 0 for name in metrics.keys() - {"warm_over_route_p50_ms"})
