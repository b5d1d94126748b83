"""`/metrics` and what it says."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from msgspec.structs import replace

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.api.log_health import LogHealth, SeenStream, Slot
from butterbase.api.metrics.calls import CallCounts, CallMetrics, call_families
from butterbase.api.metrics.exposition import (
    CONTENT_TYPE,
    Distribution,
    Family,
    Histogram,
    render,
)
from butterbase.api.metrics.logs import log_families
from butterbase.api.settings import ApiSettings
from butterbase.projections.status import (
    LogStatus,
    ProjectionStatus,
    RealtimeStatus,
    SocketStatus,
    StreamStatus,
)
from butterbase.projections.usage import encode_call
from tests.api.conftest import Api, running
from tests.following import following
from tests.projections.test_usage import changed
from tests.waiting import until


def values(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_family_is_told_in_the_text_format() -> None:
    family = Family(
        "things",
        "gauge",
        "What there is.",
        [({}, 1), ({"name": 'a "b"\\\n', "of": "c"}, 2.5), ({"name": "unknown"}, None)],
    )
    assert render([family]).decode() == (
        "# HELP butterbase_things What there is.\n"
        "# TYPE butterbase_things gauge\n"
        "butterbase_things 1\n"
        'butterbase_things{name="a \\"b\\"\\\\\\n",of="c"} 2.5\n'
    )


def test_large_numbers_keep_their_digits() -> None:
    family = Family("bytes", "gauge", "Many.", [({}, 123_456_789_012_345)])
    assert render([family]).endswith(b"butterbase_bytes 123456789012345\n")


async def test_strangers_are_told_nothing(api: Api) -> None:
    assert (await api.client.get("/metrics")).status_code == 401
    user = await api.sign_up("ada@example.com")
    for headers in (api.anon, user):
        answer = await api.client.get("/metrics", headers=headers)
        assert answer.status_code in (401, 403)
        assert answer.json()["code"] == "metrics_refused"


async def test_without_a_stream_process_the_slots_are_told(api: Api) -> None:
    answer = await api.client.get("/metrics", headers=api.service)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, CONTENT_TYPE)
    told = values(answer.text)
    for database in (api.installation.control.name, api.installation.main.name):
        assert told[f'butterbase_slot_active{{database="{database}"}}'] == 0
        assert told[f'butterbase_slot_wal_status{{database="{database}",status="missing"}}'] == 1


async def test_the_numbers_of_a_stream_process_are_told(api: Api, tmp_path: Path) -> None:
    control, main = api.installation.control.name, api.installation.main.name
    of_main = f'{{database="{main}",app="main"}}'
    async with following(api.installation, LazyEmbedder(EmbedderSettings(), tmp_path)):
        told: dict[str, float] = {}

        async def is_told() -> bool:
            headers = {"Authorization": f"Bearer {api.keys.service_role}"}
            told.update(values((await api.client.get("/metrics", headers=headers)).text))
            return told.get(f"butterbase_log_connected{of_main}") == 1

        await until(is_told)
        assert told[f'butterbase_log_connected{{database="{control}"}}'] == 1
        assert told[f'butterbase_slot_active{{database="{main}"}}'] == 1
        assert told[f'butterbase_slot_retained_wal_bytes{{database="{main}"}}'] > 0
        assert told[f"butterbase_realtime_subscribers{of_main}"] == 0
        assert told[f"butterbase_log_resyncs_total{of_main}"] == 0
        labels = f'{{database="{control}",projection="usage"}}'
        assert told[f"butterbase_projection_queued_changes{labels}"] == 0
        (rss,) = [v for n, v in told.items() if n.startswith("butterbase_stream_resident_memory")]
        assert rss > 1_000_000


async def test_a_process_that_has_left_is_not_told(api: Api, tmp_path: Path) -> None:
    async def streams() -> int:
        text = (await api.client.get("/metrics", headers=api.service)).text
        return sum(name.startswith("butterbase_stream_leading") for name in values(text))

    async with following(api.installation, LazyEmbedder(EmbedderSettings(), tmp_path)):

        async def is_there() -> bool:
            return await streams() == 1

        await until(is_there)
    assert await streams() == 0


def stream(id_: str, *, age_s: float = 0.0, pid: int = 1) -> SeenStream:
    """One that leads, or believes to."""
    log = LogStatus(
        database="app_main",
        app_id="main",
        is_connected=True,
        delivered=1,
        acknowledged=1,
        lag_s=0,
        resync_count=0,
        projections=[ProjectionStatus("p", 1, 0, 0, 0, False)],
        realtime=RealtimeStatus(0, 0),
    )
    status = StreamStatus("host", pid, datetime.now(UTC), True, 1, SocketStatus(), [log])
    return SeenStream(id_, age_s, 1, status)


SLOT = Slot("app_main", True, "reserved", 1, 1, 1)


COUNTS = CallCounts(
    app_id="main",
    endpoint="messages",
    provider="p",
    model="m",
    status="ok",
    error_code="",
    calls=3,
    attempts=4,
    prompt_tokens=5,
    completion_tokens=6,
    cached_tokens=2,
    cache_write_tokens=1,
    reasoning_tokens=1,
    cost_nanos=1_500_000_001,
    saved_nanos=7,
    cache_hits=1,
    cache_semantic_hits=1,
    cache_misses=1,
    cache_bypasses=1,
    latency_ms=1_234,
    latency_counts=[1, 0, 2, *[0] * 12],
    first_token_ms=50,
    first_token_counts=[1, *[0] * 11],
)


def test_operations_md_lists_every_metric_with_its_labels() -> None:
    logs = log_families(LogHealth([SLOT], [stream("a")]), away_s_max=15)
    calls = call_families(CallMetrics([COUNTS], {"main": 1}))
    told = {
        (f"butterbase_{family.name}", ", ".join(f"`{name}`" for name in labels))
        for family in [*logs, *calls]
        for labels, _ in family.samples
    }
    page = Path(__file__).parents[2].joinpath("docs/operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(butterbase_\w+)` \| ([^|]+?) \|", page, re.MULTILINE)) == told


def test_a_process_that_was_killed_is_not_told_to_lead_and_nothing_is_told_twice() -> None:
    """Prometheus refuses all of an answer that tells a sample twice."""
    now = stream("now")
    killed = [stream("before", age_s=3, pid=2), stream("the same container", age_s=5)]
    text = render(log_families(LogHealth([SLOT], [now, *killed]), away_s_max=15)).decode()
    told = values(text)
    assert len(told) == len([line for line in text.splitlines() if not line.startswith("#")])
    assert told['butterbase_stream_leading{stream="host:1"}'] == 1
    assert told['butterbase_stream_leading{stream="host:2"}'] == 0
    assert told['butterbase_stream_seen_seconds{stream="host:1"}'] == 0


def test_of_a_process_that_is_away_no_log_is_told() -> None:
    text = render(log_families(LogHealth([SLOT], [stream("a", age_s=16)]), away_s_max=15)).decode()
    told = values(text)
    assert told['butterbase_stream_leading{stream="host:1"}'] == 0
    assert not any(name.startswith("butterbase_log_") for name in told)


def test_a_histogram_is_told_with_the_sums_of_its_buckets() -> None:
    histogram = Histogram(
        "took", "How long.", [0.5, 2.5], [({"a": "b"}, Distribution([1, 0, 2], 9))]
    )
    assert render([histogram]).decode() == (
        "# HELP butterbase_took How long.\n"
        "# TYPE butterbase_took histogram\n"
        'butterbase_took_bucket{a="b",le="0.5"} 1\n'
        'butterbase_took_bucket{a="b",le="2.5"} 1\n'
        'butterbase_took_bucket{a="b",le="+Inf"} 3\n'
        'butterbase_took_sum{a="b"} 9\n'
        'butterbase_took_count{a="b"} 3\n'
    )


def test_rows_that_differ_in_what_a_family_does_not_tell_are_summed() -> None:
    """Prometheus refuses all of an answer that tells a sample twice."""
    other = replace(COUNTS, endpoint="responses")
    text = render(call_families(CallMetrics([COUNTS, other], {}))).decode()
    told = values(text)
    assert len(told) == len([line for line in text.splitlines() if not line.startswith("#")])
    of_model = 'app="main",provider="p",model="m"'
    calls = "butterbase_ai_calls_total{" + of_model + ',status="ok",endpoint="messages",code=""}'
    assert told[calls] == 3
    assert told["butterbase_ai_cost_usd_total{" + of_model + "}"] == 3.000000002
    assert told["butterbase_ai_call_duration_seconds_count{" + of_model + ',status="ok"}'] == 6
    assert told["butterbase_ai_tokens_total{" + of_model + ',type="prompt"}'] == 10
    assert told['butterbase_ai_cache_lookups_total{app="main",result="semantic"}'] == 2


async def test_every_worker_tells_the_same_of_calls_of_all_workers(
    api: Api, tmp_path: Path
) -> None:
    call = changed(stream=True, latency_ms=1_500, first_token_ms=80)
    calls = "butterbase_ai_calls_total"
    async with (
        following(api.installation, LazyEmbedder(EmbedderSettings(), tmp_path)),
        running(api.installation, ApiSettings()) as other,
    ):
        with psycopg.connect(api.installation.control.dsn, autocommit=True) as conn:
            for app_id in ("main", "main", "gone"):
                conn.execute(
                    "insert into butterbase.events (app_id, type, data) values (%s, 'ai.call', %s)",
                    [app_id, encode_call(call).decode()],
                )

        async def ai_lines(worker: Api) -> list[str]:
            text = (await worker.client.get("/metrics", headers=api.service)).text
            return [line for line in text.splitlines() if line.startswith("butterbase_ai_")]

        async def is_counted() -> bool:
            told = values("\n".join(await ai_lines(api)))
            return [v for name, v in told.items() if name.startswith(calls)] == [2]

        await until(is_counted)
        told = await ai_lines(api)
        assert told == await ai_lines(other)
        assert any(line.startswith("butterbase_ai_first_token_seconds_bucket") for line in told)
        assert "gone" not in json.dumps(told)
