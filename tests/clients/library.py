"""The app that the clients' tests talk to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from butterbase.api.auth.keys import AppKeys
from tests.installation import Installation

SCHEMA = Path(__file__).with_name("library.sql")


@dataclass(frozen=True)
class Library:
    """The URL of an api worker, and how to be somebody there."""

    installation: Installation
    url: str
    keys: AppKeys

    def headers(self, token: str | None = None) -> dict[str, str]:
        """Of the service role, or of a user."""
        if token is None:
            return {"apikey": self.keys.service_role}
        return {"apikey": self.keys.anon, "Authorization": f"Bearer {token}"}

    def sign_up(self, email: str) -> str:
        """A new user's token."""
        answer = httpx.post(
            f"{self.url}/auth/v1/signup",
            json={"email": email, "password": "correct horse"},
            headers={"apikey": self.keys.anon},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def sql(self, query: str) -> list[Any]:
        """The rows of a query, as the owner."""
        with psycopg.connect(self.installation.owner_dsn) as connection:
            return connection.execute(query.encode()).fetchall()
