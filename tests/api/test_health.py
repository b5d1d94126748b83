from datetime import UTC, datetime
from pathlib import Path

import pytest

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.api.health import readiness
from butterbase.api.log_health import LogHealth, SeenStream, Slot
from butterbase.projections.status import LogStatus, SocketStatus, StreamStatus
from tests.api.conftest import Api
from tests.following import following
from tests.waiting import until


def health(
    *, is_leading: bool = True, age_s: float = 0.0, active: bool = True, delivered: int = 1000
) -> LogHealth:
    """Of one database, whose log is at 1000."""
    log = LogStatus(
        database="app_main",
        app_id="main",
        is_connected=True,
        delivered=delivered,
        acknowledged=0,
        lag_s=0.5,
        resync_count=0,
        projections=[],
        realtime=None,
    )
    logs = [log] if is_leading else []
    status = StreamStatus("host", 1, datetime.now(UTC), is_leading, 0, SocketStatus(), logs)
    slot = Slot("app_main", active, "reserved", None, 0, 0)
    return LogHealth([slot], [SeenStream("id", age_s, 1000, status)])


@pytest.mark.parametrize(
    ("found", "is_ready"),
    [
        (health(), True),
        (health(delivered=900), True),
        (health(delivered=899), False),
        (health(active=False), False),
        (health(age_s=15.0), True),
        (health(age_s=15.1), False),
        (health(is_leading=False), False),
        (LogHealth([], []), False),
    ],
)
def test_ready_is_who_reads_every_log_up_to_the_limit(found: LogHealth, is_ready: bool) -> None:
    assert readiness(found, lag_bytes_max=100, away_s_max=15.0).ready is is_ready


def test_the_lag_is_what_is_not_delivered_whatever_is_kept_for_replay() -> None:
    (slot,) = readiness(health(delivered=900), lag_bytes_max=0, away_s_max=15.0).slots
    assert (slot.lag_bytes, slot.lag_s) == (100, 0.5)
    (slot,) = readiness(health(age_s=60.0), lag_bytes_max=0, away_s_max=15.0).slots
    assert (slot.lag_bytes, slot.lag_s) == (None, None)


async def test_live_is_live(api: Api) -> None:
    assert (await api.client.get("/healthz")).json() == {"status": "ok"}
    assert (await api.client.head("/healthz")).status_code == 200


async def test_not_ready_while_nobody_reads_the_log(api: Api) -> None:
    answer = await api.client.get("/readyz")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["database"] is True


async def test_ready_when_every_log_is_read(api: Api, tmp_path: Path) -> None:
    embedder = LazyEmbedder(EmbedderSettings(), tmp_path)
    async with following(api.installation, embedder):

        async def is_ready() -> bool:
            return (await api.client.get("/readyz")).status_code == 200

        await until(is_ready)
        names = {api.installation.control.name, api.installation.main.name}
        for headers, told in ((api.service, names), (api.anon, {None}), ({}, {None})):
            slots = (await api.client.get("/readyz", headers=headers)).json()["slots"]
            assert {slot["database"] for slot in slots} == told
            assert all(slot["active"] for slot in slots)
