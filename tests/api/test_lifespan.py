"""What a worker does beside its requests."""

import pytest

from butterbase.api.alerts import AlertDelivery
from butterbase.api.settings import ApiSettings
from tests.api.conftest import running
from tests.installation import Installation
from tests.waiting import until


async def test_work_that_ends_by_a_mistake_is_told(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(_: AlertDelivery) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(AlertDelivery, "run", run)
    async with running(installation, ApiSettings()):
        await until(lambda: "has ended" in caplog.text)
    assert "a mistake of ours" in caplog.text
