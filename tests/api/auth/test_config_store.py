"""What a worker knows of an app's settings, whichever of two readings ends first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.api.auth.config_store import CACHED_S, AuthConfigs
from butterbase.sql.cluster import app_service
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.installation import MASTER_KEY, Installation


class Held(Executor):
    """Holds back answers, once they are there, while it is told to."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.go_on: asyncio.Event | None = None
        self.answered = asyncio.Event()

    async def run(self, *statements: Statement, **options: Any) -> list[Result]:
        go_on = self.go_on
        results = await super().run(*statements, **options)
        if go_on is not None:
            self.answered.set()
            await go_on.wait()
        return results


@pytest.fixture
async def service(installation: Installation) -> AsyncIterator[Held]:
    service = Held(installation.cluster.dsn(app_service("main"), installation.main.name))
    yield service
    await service.close()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


AUDITED = Statement(b"select 1")


async def late_reading(configs: AuthConfigs, service: Held) -> "tuple[asyncio.Task[Any], Any]":
    """One whose answer is there, and will be heard of later."""
    go_on = service.go_on = asyncio.Event()
    reading = asyncio.create_task(configs.get())
    await service.answered.wait()
    service.go_on = None
    return reading, go_on


async def test_a_reading_of_before_a_change_does_not_undo_it(service: Held) -> None:
    heard: list[int] = []
    configs = AuthConfigs(
        "main", service, MASTER_KEY, on_read=lambda config: heard.append(config.key_epoch)
    )
    reading, go_on = await late_reading(configs, service)
    await configs.change({"key_epoch": 1}, audited=AUDITED, now_s=0)
    go_on.set()
    await reading
    assert (await configs.get()).key_epoch == 1
    assert heard == [1]


async def test_of_two_readings_the_later_one_holds(service: Held) -> None:
    clock = Clock()
    configs = AuthConfigs("main", service, MASTER_KEY, clock=clock)
    other = AuthConfigs("main", service, MASTER_KEY)
    await configs.get()
    clock.now_s = CACHED_S
    reading, go_on = await late_reading(configs, service)
    await other.change({"is_signup_enabled": False}, audited=AUDITED, now_s=0)
    assert not (await configs.get()).is_signup_enabled
    go_on.set()
    assert not (await reading).is_signup_enabled
    assert not (await configs.get()).is_signup_enabled


async def test_settings_are_as_old_as_their_reading_is(service: Held) -> None:
    clock = Clock()
    configs = AuthConfigs("main", service, MASTER_KEY, clock=clock)
    other = AuthConfigs("main", service, MASTER_KEY)
    reading, go_on = await late_reading(configs, service)
    await other.change({"is_signup_enabled": False}, audited=AUDITED, now_s=0)
    clock.now_s = CACHED_S
    go_on.set()
    await reading
    assert not (await configs.get()).is_signup_enabled
