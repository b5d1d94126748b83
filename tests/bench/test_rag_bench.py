import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INGEST = {
    *("ingest_documents_per_s", "ingest_chunks_per_s", "model_alone_chunks_per_s"),
    "ingest_overhead_share",
}
LAG = {"commit_to_searchable_p50_ms", "commit_to_searchable_p99_ms"}
QUERY = {
    *(
        f"{way}_{share}_ms"
        for way in ("pgvector", "query", "query_hybrid", "query_text", "query_1pct_filter")
        for share in ("p50", "p99")
    ),
    *("query_vs_pgvector", "query_hybrid_vs_pgvector"),
}
RECALL = {"recall_at_10", "pgvector_recall_at_10", "recall_1pct_filter"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["ingest", "lag", "--documents=2", "--writes-per-s=5", "--seconds=1"], INGEST | LAG),
        (["query", "recall", "--passages=3000", "--questions=5"], QUERY | RECALL),
    ],
)
def test_a_run_of_a_moment_writes_every_metric(
    options: list[str], expected: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "rag.json"
    done = subprocess.run(
        [sys.executable, "bench/rag.py", "--part", *options, f"--json={file}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads(file.read_text())
    assert set(metrics) == expected
    assert all(value > 0 for name, value in metrics.items() if name != "ingest_overhead_share")
