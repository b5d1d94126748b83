"""`GET /admin/outbox`: the newest mails, for who develops an app without a mail server."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.mail.outbox import QUERIES
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.app_keys import hidden_users
from butterbase.api.auth.resources.requests import answer, app_of, require_admin
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Statement

MAIL_COUNT = 100


class OutboxMail(Struct, frozen=True):
    id: int
    created_at: datetime
    recipient: str
    kind: str
    attempts: int
    subject: str | None
    """Null, as the bodies, once the mail has been sent; for an app's key also a service_role's."""
    text: str | None
    html: str | None
    sent_at: datetime | None
    error: str | None


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/admin/outbox", OutboxResource())


class OutboxResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        require_admin(req)
        app = app_of(req)
        limit = req.get_param_as_int("limit", min_value=1, max_value=MAIL_COUNT, default=MAIL_COUNT)
        (result,) = await app.service.run(Statement.of(QUERIES["list_outbox"], limit))
        hidden = await hidden_users(req)
        mails = [_mail(app, hidden, *row) for row in result.rows()]
        answer(resp, msgspec.json.encode({"mails": mails}))


def _mail(
    app: AppRuntime,
    hidden: frozenset[str],
    id_: bytes | None,
    created_at_s: bytes | None,
    recipient: bytes | None,
    kind: bytes | None,
    sealed: bytes | None,
    sent_at_s: bytes | None,
    attempts: bytes | None,
    error: bytes | None,
) -> OutboxMail:
    content = None
    if sealed is not None:
        try:
            letter = app.auth.outbox.open(bytes.fromhex(sealed.decode()))
            content = None if letter.user_id in hidden else letter.content
        except SettingError as cannot:
            error = str(cannot).encode()
    return OutboxMail(
        id=int(id_ or 0),
        created_at=_time(created_at_s or b"0"),
        recipient=(recipient or b"").decode(),
        kind=(kind or b"").decode(),
        attempts=int(attempts or 0),
        subject=content.subject if content else None,
        text=content.text if content else None,
        html=content.html if content else None,
        sent_at=None if sent_at_s is None else _time(sent_at_s),
        error=None if error is None else error.decode(),
    )


def _time(seconds: bytes) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
