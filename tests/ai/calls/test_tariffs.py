"""The prices that admissions go by: one tariff for a second, and never another configuration's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from butterbase.ai.calls.admitting import TARIFF_COUNT_MAX, Admissions
from butterbase.ai.routing.health import Health

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


class Clock:
    at = NOON

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("butterbase.ai.calls.admitting.now", clock)
    return clock


@pytest.fixture
def admissions(clock: Clock) -> Any:
    anything: Any = None
    return Admissions(anything, health=Health(), life_s=1)


def test_a_tariff_serves_for_its_second_and_configuration(admissions: Any, clock: Clock) -> None:
    app, changed = object(), object()
    first = admissions._tariff(None, "a", app)
    clock.at = NOON + timedelta(milliseconds=999)
    assert admissions._tariff(None, "a", app) is first
    assert admissions._tariff(None, "b", app) is not first
    newer = admissions._tariff(None, "a", changed)
    assert newer is not first
    clock.at = NOON + timedelta(seconds=1)
    assert admissions._tariff(None, "a", changed) is not newer


def test_tariffs_of_many_apps_are_not_all_kept(admissions: Any) -> None:
    for number in range(TARIFF_COUNT_MAX * 2):
        admissions._tariff(None, str(number), object())
    assert len(admissions._tariffs) <= TARIFF_COUNT_MAX
