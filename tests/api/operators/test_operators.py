"""Operators: their sessions open every app, for as long as they are there, and nobody else's do."""

import hmac
import struct
import time
from base64 import b32decode
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from butterbase.api.apps import Apps
from butterbase.api.operators.operators import Operators
from butterbase.api.operators.runtime import operators_runtime
from butterbase.api.settings import ApiSettings
from butterbase.cli import operators
from butterbase.sql.cluster import LoginRole
from butterbase.sql.errors import InvalidTokenError, SettingError
from butterbase.sql.pipeline import Result, Statement
from tests.api.conftest import Api

OLGA = "olga@example.com"
CONFIG = "/v1/main/ai/config"


class Olga:
    """An operator, and her session."""

    def __init__(self, api: Api, password: str) -> None:
        self.api = api
        self.password = password
        self.session: dict[str, Any] = {}

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session['access_token']}"}

    async def ask(self, path: str, body: Any = None, method: str = "POST") -> httpx.Response:
        return await self.api.client.request(
            method,
            f"/operators/auth/v1/{path}",
            json=body if method != "GET" else None,
            headers=self.bearer if self.session else {},
        )

    async def sign_in(self) -> httpx.Response:
        self.session = {}
        body = {"email": OLGA, "password": self.password}
        answer = await self.ask("token?grant_type=password", body)
        if answer.status_code == 200:
            self.session = answer.json()
        return answer

    async def opens(self, path: str = CONFIG) -> tuple[int, str | None]:
        answer = await self.api.client.get(path, headers=self.bearer)
        body = answer.json()
        return answer.status_code, None if answer.status_code == 200 else body["code"]


@pytest.fixture
async def olga(api: Api) -> Olga:
    olga = Olga(api, await operators.create(api.installation.cluster, OLGA))
    assert (await olga.sign_in()).status_code == 200
    return olga


def in_control(api: Api, statement: str) -> None:
    with psycopg.connect(api.installation.control.dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


async def test_an_operator_opens_every_part_of_an_app(olga: Olga) -> None:
    olga.api.installation.as_owner("create table secrets (id int); insert into secrets values (1)")
    assert await olga.opens() == (200, None)
    assert await olga.opens("/keys") == (200, None)
    assert await olga.opens("/v1/main/auth/v1/admin/users") == (200, None)
    rows = await olga.api.client.get("/rest/v1/secrets", headers=olga.bearer)
    assert rows.json() == [{"id": 1}]
    as_key = {"apikey": olga.session["access_token"]}
    assert (await olga.api.client.get(CONFIG, headers=as_key)).status_code == 200


async def test_an_access_token_of_an_operator_is_short_lived(olga: Olga) -> None:
    assert olga.session["expires_in"] == 900
    refreshed = await olga.ask(
        "token?grant_type=refresh_token", {"refresh_token": olga.session["refresh_token"]}
    )
    assert refreshed.status_code == 200


@pytest.mark.parametrize(
    "ending",
    [
        "delete from auth.sessions",
        "update auth.users set banned_until = 'infinity'",
        "update auth.users set deleted_at = now()",
        "delete from auth.users",
    ],
)
async def test_what_ends_a_session_ends_its_access_at_once(olga: Olga, ending: str) -> None:
    in_control(olga.api, ending)
    assert await olga.opens() == (401, "invalid_token")


async def test_signing_out_ends_access_where_it_was_just_used(olga: Olga) -> None:
    assert await olga.opens() == (200, None)
    assert (await olga.ask("logout")).status_code == 204
    assert await olga.opens() == (401, "invalid_token")


async def test_nobody_becomes_an_operator_by_asking(olga: Olga) -> None:
    changed = await olga.ask(
        "admin/settings",
        {"is_signup_enabled": True, "is_anonymous_enabled": True, "is_otp_signup_enabled": True},
        method="PUT",
    )
    assert changed.status_code == 200
    olga.session = {}
    eve = {"email": "eve@example.com", "password": "correct horse"}
    for path, body in (
        ("signup", eve),
        ("signup", {}),
        ("otp", {"email": eve["email"], "create_user": True}),
        ("magiclink", {"email": eve["email"]}),
    ):
        await olga.ask(path, body)
    (known,) = await operators.listed(olga.api.installation.cluster)
    assert known.email == OLGA


async def test_an_apps_user_or_key_is_no_operator(olga: Olga) -> None:
    user = await olga.api.sign_up("eve@example.com")
    for headers in (user, olga.api.service, {}):
        answer = await olga.api.client.get("/operators/auth/v1/admin/users", headers=headers)
        assert answer.status_code == 401
    answer = await olga.api.client.get("/operators/auth/v1/user", headers=user)
    assert answer.status_code == 403


async def test_an_operators_token_is_no_users(olga: Olga) -> None:
    answer = await olga.api.client.get("/auth/v1/user", headers=olga.api.anon | olga.bearer)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "no_authorization")


async def test_a_forged_token_is_none(olga: Olga) -> None:
    claims = jwt.decode(olga.session["access_token"], options={"verify_signature": False})
    kid = jwt.get_unverified_header(olga.session["access_token"])["kid"]
    secret = olga.api.keys.jwt_secret
    for token in (
        jwt.encode(claims, secret, "HS256", headers={"kid": kid}),
        jwt.encode(claims, olga.api.keys.signing.key(0).private, "ES256", headers={"kid": kid}),
        jwt.encode(claims, "", "none", headers={"kid": kid}),
    ):
        olga.session["access_token"] = token
        assert (await olga.opens("/keys"))[0] in (401, 403)


async def test_no_app_has_the_operators_id(olga: Olga) -> None:
    for path in ("/v1/@operators/rest/v1/", "/v1/%40operators/auth/v1/settings"):
        assert (await olga.api.client.get(path, headers=olga.bearer)).status_code == 404


async def test_a_second_factor_is_asked_for_once_there_is_one(olga: Olga) -> None:
    factor = (await olga.ask("factors", {"factor_type": "totp"})).json()
    challenge = (await olga.ask(f"factors/{factor['id']}/challenge")).json()
    body = {"challenge_id": challenge["id"], "code": totp(factor["totp"]["secret"])}
    verified = await olga.ask(f"factors/{factor['id']}/verify", body)
    assert verified.status_code == 200, verified.text
    await olga.sign_in()
    assert await olga.opens() == (403, "operator_factor_required")
    olga.session = verified.json()
    assert await olga.opens() == (200, None)


def totp(secret: str) -> str:
    digest = hmac.digest(b32decode(secret), struct.pack(">Q", int(time.time()) // 30), "sha1")
    start = digest[-1] & 15
    (number,) = struct.unpack(">I", digest[start : start + 4])
    return f"{(number & 0x7FFFFFFF) % 10**6:06}"


async def test_an_operator_makes_another(olga: Olga) -> None:
    body = {"email": "otto@example.com", "password": "correct horse", "email_confirm": True}
    assert (await olga.ask("admin/users", body)).status_code == 200
    emails = [one.email for one in await operators.listed(olga.api.installation.cluster)]
    assert emails == [OLGA, "otto@example.com"]


async def test_a_reset_password_ends_sessions(olga: Olga) -> None:
    old, cluster = olga.password, olga.api.installation.cluster
    olga.password = await operators.reset(cluster, OLGA)
    assert olga.password != old
    assert await olga.opens() == (401, "invalid_token")
    assert (await olga.sign_in()).status_code == 200
    assert await olga.opens() == (200, None)


async def test_a_removed_operator_is_gone(olga: Olga) -> None:
    cluster = olga.api.installation.cluster
    await operators.remove(cluster, OLGA)
    assert await operators.listed(cluster) == []
    assert (await olga.sign_in()).status_code == 400
    for doing in (operators.remove(cluster, OLGA), operators.reset(cluster, OLGA)):
        with pytest.raises(SettingError):
            await doing


async def test_an_operator_is_made_once(olga: Olga) -> None:
    for email in (OLGA, OLGA.upper(), "no address"):
        with pytest.raises(SettingError):
            await operators.create(olga.api.installation.cluster, email)


def test_their_passwords_are_not_the_apis_own_roles_to_read(api: Api) -> None:
    cluster = api.installation.cluster
    dsn = cluster.dsn(LoginRole.SERVICE, cluster.control_database)
    with psycopg.connect(dsn) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select encrypted_password from auth.users")


async def test_an_operator_is_told_which_databases_are_read(olga: Olga) -> None:
    answer = await olga.api.client.get("/readyz", headers={"apikey": olga.session["access_token"]})
    installation = olga.api.installation
    names = {installation.control.name, installation.main.name}
    assert {slot["database"] for slot in answer.json()["slots"]} == names


async def test_a_session_that_ends_while_it_is_read_is_not_remembered(
    olga: Olga, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = olga.api.installation.cluster
    apps = Apps(cluster, ApiSettings())
    runtime = operators_runtime(cluster, ApiSettings(), apps)
    known, run = Operators(runtime), runtime.service.run

    async def run_and_end(*statements: Statement, **options: Any) -> list[Result]:
        results = await run(*statements, **options)
        in_control(olga.api, "delete from auth.sessions")
        known.forget()
        return results

    monkeypatch.setattr(runtime.service, "run", run_and_end)
    token, now_s = olga.session["access_token"], time.time()
    assert await known.verify(token, now_s=now_s) is not None
    with pytest.raises(InvalidTokenError):
        await known.verify(token, now_s=now_s)
    await runtime.close()
    await apps.close()
