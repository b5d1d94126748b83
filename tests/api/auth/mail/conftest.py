"""A mail server in the test's own loop, and a person who reads what it gets."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import psycopg
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from butterbase.api.settings import ApiSettings
from tests.api.conftest import Api, running
from tests.installation import Installation
from tests.waiting import until

SITE = "https://app.example"
SENDER = "no-reply@app.example"
ANA = "ana@example.com"
PASSWORD = "correct horse"


@dataclass
class MailServer:
    """`replies` are said to the next mails in the place of an acceptance."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    try_count: int = 0

    async def handle_DATA(  # noqa: N802  as aiosmtpd calls it
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        self.try_count += 1
        if self.replies:
            return self.replies.pop(0)
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=SMTP_POLICY)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    kept = MailServer()
    connections: list[SMTP] = []

    def connected() -> SMTP:
        connections.append(SMTP(kept, enable_SMTPUTF8=True))
        return connections[-1]

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    kept.port = server.sockets[0].getsockname()[1]
    yield kept
    server.close()
    for connection in connections:
        if connection.transport is not None:
            connection.transport.close()
    await until(lambda: all(connection.transport is None for connection in connections))


@dataclass
class Received:
    subject: str
    text: str
    recipient: str

    @property
    def link(self) -> str:
        found = re.search(r"https?://\S+/auth/v1/verify\?\S+", self.text)
        assert found is not None, self.text
        return found[0]

    @property
    def path(self) -> str:
        """Of the link, whose host is the configured one."""
        parts = urlsplit(self.link)
        return f"{parts.path}?{parts.query}"

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]

    @property
    def type(self) -> str:
        return parse_qs(urlsplit(self.link).query)["type"][0]

    @property
    def code(self) -> str:
        found = re.search(r"\b\d{6}\b", self.text)
        assert found is not None, self.text
        return found[0]


@dataclass
class Post:
    """The app, with a mail server."""

    api: Api
    server: MailServer
    read_count: int = 0

    async def ask(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.api.client.post(
            f"/auth/v1/{path}", json=body or {}, headers=self.api.anon | headers
        )

    async def mail(self) -> Received:
        """The next mail."""
        await until(lambda: len(self.server.mails) > self.read_count)
        message = self.server.mails[self.read_count]
        body = message.get_body(("plain",))
        assert body is not None
        received = Received(message["Subject"], body.get_content(), str(message["To"]))
        self.read_count += 1
        return received

    async def follow(self, link: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """Where the link leads: the address, its query and its fragment."""
        parts = urlsplit(link)
        answer = await self.api.client.get(f"{parts.path}?{parts.query}")
        assert answer.status_code == 303, answer.text
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        to = urlsplit(answer.headers["Location"])
        return (
            f"{to.scheme}://{to.netloc}{to.path}",
            dict(parse_qsl(to.query)),
            dict(parse_qsl(to.fragment, keep_blank_values=True)),
        )

    async def verify(self, **body: str) -> httpx.Response:
        return await self.ask("verify", body)

    async def sign_in(self, email: str = ANA, password: str = PASSWORD) -> httpx.Response:
        return await self.ask("token?grant_type=password", {"email": email, "password": password})

    async def member(self, email: str = ANA) -> dict[str, Any]:
        """A new user whose address is confirmed; the session."""
        await self.ask("signup", {"email": email, "password": PASSWORD})
        session = await self.verify(type="email", email=email, token=(await self.mail()).code)
        assert session.status_code == 200, session.text
        self.forget_limits()
        return dict(session.json())

    async def configure(self, **settings: Any) -> None:
        answer = await self.api.client.put(
            "/auth/v1/admin/settings", json=settings, headers=self.api.service
        )
        assert answer.status_code == 200, answer.text

    def forget_limits(self) -> None:
        self.sql("delete from auth.rate_limits")

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.api.installation.main.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
async def api(installation: Installation) -> AsyncIterator[Api]:
    """One that may send its mail through a server on this machine."""
    async with running(installation, ApiSettings(auth_private_urls=True)) as api:
        yield api


@pytest.fixture
async def post(mail_server: MailServer, api: Api) -> Post:
    post = Post(api, mail_server)
    await post.configure(
        site_url=SITE,
        redirect_allow_list=[f"{SITE}/**", "myapp://callback"],
        mail={
            "smtp": {
                "host": "127.0.0.1",
                "port": mail_server.port,
                "tls": "none",
                "sender": SENDER,
                "sender_name": "The App",
            }
        },
    )
    return post


def bearer(session: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {session['access_token']}"}
