from pathlib import Path

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from tests.api.conftest import Api
from tests.following import following
from tests.waiting import until


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
