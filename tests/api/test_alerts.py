"""Alerts of budgets: to whom they are told, and when again."""

import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from butterbase.ai.money.config import Alerts, MoneyChange, change_money
from butterbase.api.alerts import AlertDelivery
from butterbase.api.apps import Apps
from butterbase.api.auth import hooks
from butterbase.api.settings import ApiSettings
from butterbase.sql.pipeline import Statement
from tests.api.auth.mail.conftest import MailServer, mail_server
from tests.api.auth.test_webhooks import Developer, developer
from tests.installation import Installation

__all__ = ["developer", "mail_server"]  # fixtures

SECRET = "v1,whsec_" + base64.b64encode(bytes(range(32))).decode()
DATA = {
    "budgetId": 1, "scope": "user", "subject": "ann", "period": "month", "startsOn": "2026-01-01",
    "action": "block", "percent": 80, "limitNanos": 10**10, "spentNanos": 8 * 10**9,
}  # fmt: skip
HEARD = """
create table public.heard (event jsonb);
create function public.hear(event jsonb) returns jsonb language sql security definer as
  'insert into public.heard values (event); select ''{}''::jsonb';
grant execute on function public.hear to service_role, butterbase_auth;
"""


@pytest.fixture
async def apps(installation: Installation) -> AsyncIterator[Apps]:
    apps = Apps(installation.cluster, ApiSettings(auth_private_urls=True))
    yield apps
    await apps.close()


async def configure(apps: Apps, alerts: Alerts | None, **auth: Any) -> None:
    await change_money(apps.control, "main", MoneyChange(alerts=alerts))
    app = await apps.find("main")
    nothing = Statement(b"select 1")
    await app.auth.configs.change(auth, audited=nothing, now_s=time.time())


def alert(installation: Installation, app_id: str = "main", *, age: str = "0 s") -> None:
    with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into butterbase.ai_alerts (app_id, data, created_at)"
            " values (%s, %s, now() - %s::interval)",
            [app_id, json.dumps(DATA), age],
        )


def waiting(installation: Installation) -> int:
    with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
        row = conn.execute("select count(*) from butterbase.ai_alerts").fetchone()
        assert row is not None
        return int(row[0])


async def test_a_url_is_told_with_a_signature(
    apps: Apps, installation: Installation, developer: Developer
) -> None:
    await configure(apps, Alerts(hook=developer.url), hooks={"secret": SECRET})
    alert(installation)
    for _ in range(2):
        await AlertDelivery(apps).deliver()
    assert developer.events == [{"type": "ai.budget.alert", "app_id": "main", "data": DATA}]
    assert waiting(installation) == 0


async def test_a_function_is_told(apps: Apps, installation: Installation) -> None:
    installation.as_owner(HEARD)
    await configure(apps, Alerts(hook="public.hear"))
    alert(installation)
    await AlertDelivery(apps).deliver()
    with psycopg.connect(installation.main.dsn) as conn:
        assert conn.execute("select event -> 'data' from public.heard").fetchall() == [(DATA,)]


async def test_an_address_gets_a_mail(
    apps: Apps, installation: Installation, mail_server: MailServer
) -> None:
    smtp = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none"}
    await configure(apps, Alerts(email="boss@example.com"), mail={"smtp": smtp})
    alert(installation)
    await AlertDelivery(apps).deliver()
    (mail,) = mail_server.mails
    assert mail["Subject"] == "main: 80 % of an AI budget are spent"
    assert "budget of user ann in the app main has spent 8.00 of 10.00 USD" in mail.get_content()
    assert mail_server.recipients == [["boss@example.com"]]


async def test_who_fails_is_told_later_for_a_day(
    apps: Apps, installation: Installation, developer: Developer
) -> None:
    await configure(apps, Alerts(hook=developer.url), hooks={"secret": SECRET})
    developer.status = 500
    alert(installation)
    await AlertDelivery(apps).deliver()
    assert waiting(installation) == 1
    await AlertDelivery(apps).deliver()
    assert len(developer.events) == 1  # it is not due
    alert(installation, age="2 days")
    await AlertDelivery(apps).deliver()
    assert (len(developer.events), waiting(installation)) == (2, 1)


async def test_who_cannot_be_reached_keeps_nobody_else_from_being_told_once(
    apps: Apps, installation: Installation, developer: Developer, mail_server: MailServer
) -> None:
    reached = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        away = reached | {"port": listener.getsockname()[1]}
    alerts = Alerts(hook=developer.url, email="boss@example.com")

    async def deliver(status: int, smtp: dict[str, Any]) -> tuple[int, int, int]:
        developer.status = status
        await configure(apps, alerts, hooks={"secret": SECRET}, mail={"smtp": smtp})
        with psycopg.connect(installation.control.dsn, autocommit=True) as conn:
            conn.execute("update butterbase.ai_alerts set next_attempt_at = now()")
        await AlertDelivery(apps).deliver()
        return len(developer.events), len(mail_server.mails), waiting(installation)

    alert(installation)
    assert await deliver(500, reached) == (1, 1, 1)
    assert await deliver(500, reached) == (2, 1, 1)
    assert await deliver(200, reached) == (3, 1, 0)
    alert(installation)
    assert await deliver(200, away) == (4, 1, 1)
    assert await deliver(200, away) == (4, 1, 1)
    assert await deliver(200, reached) == (4, 2, 0)


@pytest.mark.parametrize("app_id", ["main", "gone"])
async def test_what_nobody_wants_to_know_is_dropped(
    apps: Apps, installation: Installation, app_id: str
) -> None:
    alert(installation, app_id)
    await AlertDelivery(apps).deliver()
    assert waiting(installation) == 0


async def test_no_url_leads_into_our_own_network(
    installation: Installation, developer: Developer
) -> None:
    apps = Apps(installation.cluster, ApiSettings())
    try:
        await configure(apps, Alerts(hook=developer.url), hooks={"secret": SECRET})
        alert(installation)
        await AlertDelivery(apps).deliver()
    finally:
        await apps.close()
    assert developer.events == []
    assert waiting(installation) == 1


async def test_an_alert_that_fails_in_whatever_way_stops_no_other(
    apps: Apps, installation: Installation, developer: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configure(apps, Alerts(hook=developer.url), hooks={"secret": SECRET})
    call, is_first = hooks.call, iter([True, False])

    async def call_badly(*of: Any) -> Any:
        if next(is_first):
            raise ValueError("a mistake of ours")
        return await call(*of)

    monkeypatch.setattr(hooks, "call", call_badly)
    for _ in range(2):
        alert(installation)
    await AlertDelivery(apps).deliver()
    assert len(developer.events) == 1
    assert waiting(installation) == 1, "it is tried again"
