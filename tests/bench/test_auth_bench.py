import itertools
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_of_a_moment_writes_every_metric(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/auth.py", "--seconds=0.3", "--rounds=1", f"--json={file}"),
            *("--connections", "1", "2"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(file.read_text())
    loads = itertools.product(
        ("refresh", "sign_in", "sign_up"), ("rps", "p50_ms", "p99_ms"), (1, 2)
    )
    of_loads = {f"{what}_{name}_c{count}" for what, name, count in loads}
    others = {"verify_cached_us", "verify_uncached_us", "argon2_ms", "sign_in_argon2_share"}
    assert set(metrics) == of_loads | others
    assert all(value > 0 for value in metrics.values())
