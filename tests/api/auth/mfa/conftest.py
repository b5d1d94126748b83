"""A person with a phone that knows the codes."""

import base64
import time
from dataclasses import dataclass
from typing import Any

import jwt
import psycopg
import pytest

from butterbase.api.auth.mfa.totp import code_of, step_at
from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


@dataclass
class Person:
    """A signed-in user, as a client sees it."""

    api: Api
    session: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return self.api.anon | {"Authorization": f"Bearer {self.session['access_token']}"}

    @property
    def claims(self) -> dict[str, Any]:
        return jwt.decode(self.session["access_token"], options={"verify_signature": False})

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        answer = await self.api.client.post(f"/auth/v1/{path}", json=body, headers=self.headers)
        return answer.status_code, answer.json()

    async def enrol(self, name: str = "phone", **more: Any) -> "Phone":
        status, made = await self.post(
            "factors", factor_type="totp", friendly_name=name, issuer=None, **more
        )
        assert status == 200, made
        return Phone(made["id"], base64.b32decode(made["totp"]["secret"]), made)

    async def challenge(self, phone: "Phone") -> str:
        status, made = await self.post(f"factors/{phone.id}/challenge", channel=None)
        assert status == 200, made
        return str(made["id"])

    async def verify(
        self, phone: "Phone", code: str, challenge_id: str | None = None
    ) -> tuple[int, Any]:
        return await self.post(
            f"factors/{phone.id}/verify",
            factor_id=phone.id,
            challenge_id=challenge_id or await self.challenge(phone),
            code=code,
        )

    async def verified(self, phone: "Phone", code: str) -> None:
        """From here on in the session that verifying gave."""
        status, session = await self.verify(phone, code)
        assert status == 200, session
        self.session = session

    async def factors(self) -> list[dict[str, Any]]:
        answer = await self.api.client.get("/auth/v1/user", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return list(answer.json().get("factors", []))


@dataclass
class Phone:
    id: str
    secret: bytes
    enrolled: dict[str, Any]

    def code(self, *, late_steps: int = 0) -> str:
        return code_of(self.secret, step_at(time.time()) + late_steps)

    @property
    def wrong_code(self) -> str:
        right = {self.code(late_steps=steps) for steps in range(-3, 4)}
        return next(code for code in map(str, range(100_000, 100_010)) if code not in right)


async def sign_in(api: Api, path: str = "token?grant_type=password") -> Person:
    answer = await api.client.post(f"/auth/v1/{path}", json=ANA, headers=api.anon)
    assert answer.status_code == 200, answer.text
    return Person(api, answer.json())


@pytest.fixture
async def ana(api: Api) -> Person:
    return await sign_in(api, "signup")


def refused(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["error_code"]


def execute(api: Api, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
