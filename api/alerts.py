"""Tells an app's administrator that a budget has passed one of its thresholds.

The projection leaves a row for each alert (projections/budgets.py); whichever worker finds it
delivers it, to the hook and the address of `alerts` in ai/config. It may be told twice, after a
worker died in between, and is given up after a day; the event `ai.budget.alert` stays.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from butterbase.ai.money.amounts import format_usd
from butterbase.ai.money.config import Alerts
from butterbase.api.apps import AppRuntime, Apps
from butterbase.api.auth import hooks
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.mail.errors import MailRefusedError
from butterbase.api.auth.mail.message import Letter, Mail
from butterbase.api.auth.mail.smtp import SmtpMailer
from butterbase.api.auth.mail.templates import Rendered
from butterbase.api.errors import UnknownAppError
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Statement

logger = logging.getLogger(__name__)

QUERIES = load_queries("alerts")

INTERVAL_S: Final = 10.0
LEASE_S: Final = 300.0
"""One that was not delivered is tried again after this."""
AGE_S_MAX: Final = 24 * 3600.0
CLAIMED_COUNT_MAX: Final = 10


class _Alert(Struct, frozen=True, rename="camel"):
    """The event's data."""

    scope: str
    subject: str
    period: str
    starts_on: str
    action: str
    percent: int
    limit_nanos: int
    spent_nanos: int

    def letter(self, app_id: str) -> Letter:
        of = f"{self.scope} {self.subject}".strip()
        span = (
            "in all" if self.period == "lifetime" else f"in the {self.period} of {self.starts_on}"
        )
        text = (
            f"The AI budget of {of} in the app {app_id} has spent {format_usd(self.spent_nanos)} of"
            f" {format_usd(self.limit_nanos)} USD {span}: {self.percent} % are passed.\n"
        )
        subject = f"{app_id}: {self.percent} % of an AI budget are spent"
        return Letter("", Rendered(subject, text, None), {})


_ALERT = msgspec.json.Decoder(_Alert)
_ALERTS = msgspec.json.Decoder(Alerts)


class AlertDelivery:
    """Each worker's: what one has claimed, others leave alone."""

    def __init__(
        self, apps: Apps, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._apps = apps
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.deliver()
            except ButterbaseError as error:
                logger.warning("alerts of budgets wait: %s", error)
            await self._sleep(INTERVAL_S)

    async def deliver(self) -> None:
        """Once what is due. Raises DatabaseError, DatabaseUnavailableError."""
        (claimed,) = await self._apps.control.run(
            Statement.of(QUERIES["claim"], LEASE_S, CLAIMED_COUNT_MAX)
        )
        for id_, app_id, data, age_s, alerts, *told in claimed.rows():
            alert = _Due(
                (app_id or b"").decode(), id_ or b"", data or b"", *(t == b"t" for t in told)
            )
            is_told = alerts is None or await self._is_told(alert, _ALERTS.decode(alerts))
            if is_told or float(age_s or 0) > AGE_S_MAX:
                await self._apps.control.run(Statement(QUERIES["drop"], (id_,)))

    async def _is_told(self, alert: "_Due", alerts: Alerts) -> bool:
        """One who cannot be reached keeps the other from nothing, and neither is told twice."""
        try:
            app = await self._apps.find(alert.app_id)
            config = await app.auth.configs.get()
        except UnknownAppError:
            return True
        except ButterbaseError as error:
            logger.warning("app %s: an alert of a budget waits: %s", alert.app_id, error)
            return False
        is_told = True
        if alerts.hook is not None and not alert.is_hook_told:
            payload: dict[str, Any] = {"type": "ai.budget.alert", "app_id": alert.app_id}
            payload["data"] = msgspec.Raw(alert.data)
            calling = hooks.call(app, config, alerts.hook, payload)
            is_told &= await self._try(alert, "hook", calling)
        if alerts.email is not None and not alert.is_email_told:
            mailing = _mail(app, config, alerts.email, alert)
            is_told &= await self._try(alert, "email", mailing)
        return is_told

    async def _try(self, alert: "_Due", who: str, telling: Awaitable[object]) -> bool:
        """Raises DatabaseError, DatabaseUnavailableError."""
        try:
            await telling
        except ButterbaseError as error:
            logger.warning("app %s: an alert of a budget is not delivered: %s", alert.app_id, error)
            return False
        except Exception:  # what is wrong with one app's keeps no other's from being told
            logger.exception("app %s: an alert of a budget is not delivered", alert.app_id)
            return False
        told = Statement(QUERIES["told"], (alert.id, who.encode()))
        await self._apps.control.run(told)
        return True


class _Due(Struct, frozen=True):
    app_id: str
    id: bytes
    data: bytes
    is_hook_told: bool
    is_email_told: bool


async def _mail(app: AppRuntime, config: AuthConfig, address: str, alert: _Due) -> None:
    """Raises MailUnavailableError."""
    if config.mail.smtp is None:
        logger.warning("app %s: an alert of a budget is not mailed, it has no mail server", app.id)
        return
    mailer = SmtpMailer(config.mail.smtp, is_private_allowed=app.auth.web.is_private_allowed)
    try:
        letter = _ALERT.decode(alert.data).letter(app.id)
        await mailer.send(Mail(f"ai-alert-{alert.id.decode()}", address, letter))
    except MailRefusedError as error:
        logger.warning("app %s: an alert of a budget cannot be mailed: %s", app.id, error)
