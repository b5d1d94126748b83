"""The auth of the app that the clients' tests talk to: its settings, and the mail it sends."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import psycopg

from tests.clients.library import Library

ANA = "ana@example.com"
PASSWORD = "correct horse"
WELCOME = "http://127.0.0.1:3000/welcome"
"""Of the app's own machine, where a redirect may lead to any port."""

SETTINGS = {
    "is_anonymous_enabled": True,
    "is_manual_linking_enabled": True,
    "mail": {"is_autoconfirmed": False},
    "rate_limits": {"is_enabled": False},
    "providers": {"google": {"client_id": "app", "client_secret": "secret"}},
}


@dataclass(frozen=True)
class Mail:
    kind: str
    text: str

    @property
    def code(self) -> str:
        found = re.search(r"\b\d{6}\b", self.text)
        assert found is not None, self.text
        return found[0]

    @property
    def link(self) -> str:
        found = re.search(r"https?://\S+/auth/v1/verify\?\S+", self.text)
        assert found is not None, self.text
        return found[0]

    @property
    def token_hash(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]


@dataclass(frozen=True)
class Auth:
    library: Library

    @property
    def url(self) -> str:
        return f"{self.library.url}/auth/v1"

    def configure(self, **patch: Any) -> None:
        self._admin("PUT", "settings", json=patch)

    def reset(self) -> None:
        """All settings as they are where none is given, and no users."""
        self.configure(**dict.fromkeys(self._admin("GET", "settings")))
        for table in ("users", "mail_outbox", "rate_limits"):
            self.sql(f"delete from auth.{table}")  # noqa: S608  constants

    def app_key(self, *scopes: str) -> str:
        answer = httpx.post(
            f"{self.library.url}/keys",
            json={"name": "backend", "scopes": scopes},
            headers=self.library.headers(),
        )
        return str(answer.json()["key"])

    def mail(self, recipient: str) -> Mail:
        """The newest to that address."""
        mails = self._admin("GET", "outbox")["mails"]
        found = next(mail for mail in mails if mail["recipient"] == recipient)
        return Mail(found["kind"], found["text"])

    def sql(self, statements: str) -> None:
        """Run as a superuser."""
        dsn = self.library.installation.main.dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statements.encode())

    def _admin(self, method: str, path: str, **request: Any) -> Any:
        answer = httpx.request(
            method, f"{self.url}/admin/{path}", headers=self.library.headers(), **request
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


def follow(link: str) -> str:
    """Where a browser is led."""
    answer = httpx.get(link)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def with_claims(token: str, **claims: Any) -> str:
    """The same token saying something else; its signature does not hold any more."""
    header, payload, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(payload + "==")) | claims
    encoded = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    return f"{header}.{encoded}.{signature}"
