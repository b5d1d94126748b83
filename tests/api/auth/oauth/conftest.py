"""An app with an OIDC provider `acme`, and browsers that sign in with it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import psycopg
import pytest

from butterbase.api.auth.auth_codes import s256
from butterbase.api.settings import ApiSettings
from tests.api.auth.oauth.issuer import CLIENT_ID, CLIENT_SECRET, Issuer, issuing
from tests.api.conftest import Api, running
from tests.installation import Installation

SITE = "https://app.example"


ANA = "ana@example.com"


VERIFIER = "v" * 43


@dataclass
class Landing:
    """Where a browser was led in the end."""

    url: str

    @property
    def place(self) -> str:
        return self.url.partition("#")[0].partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))

    @property
    def fragment(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).fragment, keep_blank_values=True))

    @property
    def error_code(self) -> str | None:
        assert self.query.get("error_code") == self.fragment.get("error_code")
        return self.query.get("error_code")


@dataclass
class Browser:
    """With cookies of its own. It follows redirects by hand, one at a time."""

    client: httpx.AsyncClient

    async def visit(self, url: str, **options: Any) -> httpx.Response:
        """A page of ours: what our public address leads to is at the test's own port."""
        parts = urlsplit(url)
        return await self.client.get(f"{parts.path}?{parts.query}", **options)

    async def start(self, provider: str = "acme", **asked: str) -> str:
        """The provider's address that `/authorize` leads to."""
        answer = await self.client.get("/auth/v1/authorize", params={"provider": provider, **asked})
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    async def consent(self, url: str) -> str:
        """Signs in at the provider: the address of ours that it leads back to."""
        async with httpx.AsyncClient() as elsewhere:
            answer = await elsewhere.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    async def land(self, url: str) -> Landing:
        answer = await self.visit(url)
        assert answer.status_code == 302, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        return Landing(answer.headers["Location"])

    async def sign_in(self, provider: str = "acme", **asked: str) -> Landing:
        return await self.land(await self.consent(await self.start(provider, **asked)))


@dataclass
class World:
    api: Api
    issuer: Issuer
    browsers: list[httpx.AsyncClient] = field(default_factory=list)

    def browser(self) -> Browser:
        client = httpx.AsyncClient(base_url=self.api.client.base_url, timeout=30)
        self.browsers.append(client)
        return Browser(client)

    async def configure(self, **settings: Any) -> None:
        answer = await self.api.client.put(
            "/auth/v1/admin/settings", json=settings, headers=self.api.service
        )
        assert answer.status_code == 200, answer.text

    async def provide(self, name: str = "acme", issuer: Issuer | None = None, **more: Any) -> None:
        """Set up a provider beside those there are."""
        issuer = issuer or self.issuer
        given = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "issuer": issuer.url,
            **more,
        }
        await self.configure(providers={name: given})

    async def post(self, path: str, body: Any, token: str | None = None) -> tuple[int, Any]:
        headers = self.api.anon | ({} if token is None else {"Authorization": f"Bearer {token}"})
        answer = await self.api.client.post(f"/auth/v1/{path}", json=body, headers=headers)
        return answer.status_code, answer.json()

    async def get(self, path: str, token: str) -> tuple[int, Any]:
        headers = self.api.anon | {"Authorization": f"Bearer {token}"}
        answer = await self.api.client.get(f"/auth/v1/{path}", headers=headers)
        return answer.status_code, answer.json()

    async def exchange(self, code: str, verifier: str = VERIFIER) -> tuple[int, Any]:
        body = {"auth_code": code, "code_verifier": verifier}
        return await self.post("token?grant_type=pkce", body)

    async def id_token(self, token: str, **more: Any) -> tuple[int, Any]:
        access_token = more.pop("bearer", None)
        body = {"provider": "acme", "id_token": token, **more}
        return await self.post("token?grant_type=id_token", body, access_token)

    async def sign_up(self, email: str = ANA, password: str = "correct horse") -> dict[str, Any]:
        """A session, of an address that counts as confirmed and was not."""
        status, session = await self.post("signup", {"email": email, "password": password})
        assert status == 200, session
        return dict(session)

    async def new_user(self, email: str = ANA, password: str = "correct horse") -> str:
        """One whose address an administrator has confirmed; its id."""
        answer = await self.api.client.post(
            "/auth/v1/admin/users",
            json={"email": email, "password": password, "email_confirm": True},
            headers=self.api.service,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def begin_link(self, token: str, **asked: str) -> str:
        """Our address where a browser begins to link an identity, as auth-js is told it."""
        asked = {"provider": "acme", "skip_http_redirect": "true", **asked}
        status, answer = await self.get(f"user/identities/authorize?{urlencode(asked)}", token)
        assert status == 200, answer
        assert list(answer) == ["url"]
        return str(answer["url"])

    async def delete_identity(self, identity_id: str, token: str) -> tuple[int, Any]:
        headers = self.api.anon | {"Authorization": f"Bearer {token}"}
        path = f"/auth/v1/user/identities/{identity_id}"
        answer = await self.api.client.delete(path, headers=headers)
        return answer.status_code, answer.json()

    async def sign_in_by_password(
        self, email: str = ANA, password: str = "correct horse"
    ) -> tuple[int, Any]:
        return await self.post("token?grant_type=password", {"email": email, "password": password})

    async def signed_in(self, **asked: str) -> dict[str, Any]:
        """The session of a new browser that signs in with the provider."""
        landing = await self.browser().sign_in(**PKCE, **asked)
        status, session = await self.exchange(landing.query["code"])
        assert status == 200, session
        return dict(session)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.api.installation.main.dsn, autocommit=True) as conn:
            cursor = conn.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []


PKCE = {"code_challenge": s256(VERIFIER), "code_challenge_method": "s256"}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing(email=ANA, email_verified=True, name="Ana") as issuer:
        yield issuer


@pytest.fixture
async def world(installation: Installation, issuer: Issuer) -> AsyncIterator[World]:
    async with running(installation, ApiSettings(auth_private_urls=True)) as api:
        world = World(api, issuer)
        await world.configure(
            site_url=SITE,
            redirect_allow_list=["https://*.example.net/welcome", "com.example.app://in"],
            is_manual_linking_enabled=True,
        )
        await world.provide()
        yield world
        for client in world.browsers:
            await client.aclose()


BEN = "ben@example.com"


async def follow(browser: Browser, began: str) -> Landing:
    answer = await browser.visit(began)
    assert answer.status_code == 302, answer.text
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    return await browser.land(await browser.consent(answer.headers["Location"]))


def providers_of(user: dict[str, Any]) -> list[str]:
    return [identity["provider"] for identity in user["identities"]]


def identity_id(session: dict[str, Any], provider: str) -> str:
    (found,) = (
        one["identity_id"] for one in session["user"]["identities"] if one["provider"] == provider
    )
    return str(found)
