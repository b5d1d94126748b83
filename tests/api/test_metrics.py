"""`/metrics` and what it says."""

import re
from datetime import UTC, datetime
from pathlib import Path

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.api.log_health import LogHealth, SeenStream, Slot
from butterbase.api.metrics import CONTENT_TYPE, Family, families, render
from butterbase.projections.status import (
    LogStatus,
    ProjectionStatus,
    RealtimeStatus,
    SocketStatus,
    StreamStatus,
)
from tests.api.conftest import Api
from tests.following import following
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


def test_operations_md_lists_every_metric_with_its_labels() -> None:
    told = {
        (f"butterbase_{family.name}", ", ".join(f"`{name}`" for name in labels))
        for family in families(LogHealth([SLOT], [stream("a")]), away_s_max=15)
        for labels, _ in family.samples
    }
    page = Path(__file__).parents[2].joinpath("docs/operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(butterbase_\w+)` \| ([^|]+?) \|", page, re.MULTILINE)) == told


def test_a_process_that_was_killed_is_not_told_to_lead_and_nothing_is_told_twice() -> None:
    """Prometheus refuses all of an answer that tells a sample twice."""
    now = stream("now")
    killed = [stream("before", age_s=3, pid=2), stream("the same container", age_s=5)]
    text = render(families(LogHealth([SLOT], [now, *killed]), away_s_max=15)).decode()
    told = values(text)
    assert len(told) == len([line for line in text.splitlines() if not line.startswith("#")])
    assert told['butterbase_stream_leading{stream="host:1"}'] == 1
    assert told['butterbase_stream_leading{stream="host:2"}'] == 0
    assert told['butterbase_stream_seen_seconds{stream="host:1"}'] == 0


def test_of_a_process_that_is_away_no_log_is_told() -> None:
    text = render(families(LogHealth([SLOT], [stream("a", age_s=16)]), away_s_max=15)).decode()
    told = values(text)
    assert told['butterbase_stream_leading{stream="host:1"}'] == 0
    assert not any(name.startswith("butterbase_log_") for name in told)
