from typing import Any

import bcrypt
import psycopg
import pytest
from argon2 import PasswordHasher

from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


async def post(api: Api, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    answer = await api.client.post(f"/auth/v1/{path}", json=body, headers=api.anon | headers)
    return answer.status_code, answer.json()


async def configure(api: Api, **patch: Any) -> None:
    answer = await api.client.put("/auth/v1/admin/settings", json=patch, headers=api.service)
    assert answer.status_code == 200, answer.text


async def test_a_user_signs_up_and_in_and_is_known(api: Api) -> None:
    status, made = await post(api, "signup", ANA | {"data": {"name": "Ana"}})
    assert (status, made["user"]["user_metadata"]) == (200, {"name": "Ana"})
    status, session = await post(api, "token?grant_type=password", ANA)
    assert (status, session["token_type"]) == (200, "bearer")
    me = await api.client.get(
        "/auth/v1/user",
        headers=api.anon | {"Authorization": f"Bearer {session['access_token']}"},
    )
    assert me.json()["id"] == made["user"]["id"] == session["user"]["id"]
    assert me.json()["email"] == "ana@example.com"


async def test_addresses_differ_by_more_than_case(api: Api) -> None:
    await post(api, "signup", ANA)
    status, error = await post(api, "signup", ANA | {"email": "ANA@example.com"})
    assert (status, error["error_code"]) == (422, "user_already_exists")
    other_case = ANA | {"email": "Ana@Example.com"}
    assert (await post(api, "token?grant_type=password", other_case))[0] == 200


async def test_newer_clients_read_the_code_where_they_expect_it(api: Api) -> None:
    version = {"X-Supabase-Api-Version": "2024-01-01"}
    status, error = await post(api, "token?grant_type=password", ANA, **version)
    assert (status, error["code"]) == (400, "invalid_credentials")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("token?grant_type=password", ANA | {"password": "wrong"}, "invalid_credentials"),
        ("token?grant_type=password", ANA | {"email": "nobody@x.yz"}, "invalid_credentials"),
        ("token?grant_type=password", ANA | {"email": "a\0b@x.yz"}, "invalid_credentials"),
        ("token?grant_type=password", {"email": "ana@example.com"}, "validation_failed"),
        ("token?grant_type=magic", ANA, "unsupported_grant_type"),
        ("token?grant_type=refresh_token", {"refresh_token": "x"}, "refresh_token_not_found"),
        ("signup", ANA | {"email": "not an address"}, "email_address_invalid"),
        ("signup", {"email": "b@x.yz", "password": "short"}, "weak_password"),
        ("signup", {"email": "b@x.yz", "password": "x" * 2000}, "weak_password"),
        ("signup", [], "validation_failed"),
    ],
)
async def test_a_refusal_has_a_stable_code(api: Api, path: str, body: Any, code: str) -> None:
    await post(api, "signup", ANA)
    status, error = await post(api, path, body)
    assert status in (400, 422)
    assert error["error_code"] == code


async def test_a_refresh_token_is_good_once(api: Api) -> None:
    await configure(api, refresh_reuse_s=0)
    _, session = await post(api, "signup", ANA)
    old = {"refresh_token": session["refresh_token"]}
    status, renewed = await post(api, "token?grant_type=refresh_token", old)
    assert status == 200
    assert renewed["refresh_token"] != session["refresh_token"]
    status, error = await post(api, "token?grant_type=refresh_token", old)
    assert (status, error["error_code"]) == (400, "refresh_token_already_used")
    new = {"refresh_token": renewed["refresh_token"]}
    status, error = await post(api, "token?grant_type=refresh_token", new)
    assert (status, error["error_code"]) == (400, "refresh_token_not_found")


async def test_signing_out_ends_the_session(api: Api) -> None:
    _, session = await post(api, "signup", ANA)
    bearer = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
    assert (await api.client.post("/auth/v1/logout", headers=bearer)).status_code == 204
    refresh = {"refresh_token": session["refresh_token"]}
    assert (await post(api, "token?grant_type=refresh_token", refresh))[0] == 400
    gone = await api.client.get("/auth/v1/user", headers=bearer)
    assert (gone.status_code, gone.json()["error_code"]) == (403, "session_not_found")


async def test_passwords_are_hashed_and_renewed_when_the_parameters_change(api: Api) -> None:
    await post(api, "signup", ANA)
    weaker = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(ANA["password"])
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        (stored,) = conn.execute("select encrypted_password from auth.users").fetchone() or ()
        assert stored.startswith("$argon2id$")
        assert ANA["password"] not in stored
        conn.execute("update auth.users set encrypted_password = %s", [weaker])
        assert (await post(api, "token?grant_type=password", ANA))[0] == 200
        (renewed,) = conn.execute("select encrypted_password from auth.users").fetchone() or ()
    assert renewed not in (weaker, stored)


async def test_a_bcrypt_hash_of_another_system_opens_the_account_and_is_renewed(api: Api) -> None:
    await post(api, "signup", ANA)
    imported = bcrypt.hashpw(ANA["password"].encode(), bcrypt.gensalt(4)).decode()
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        conn.execute("update auth.users set encrypted_password = %s", [imported])
        wrong = ANA | {"password": "wrong horse"}
        assert (await post(api, "token?grant_type=password", wrong))[0] == 400
        assert (await post(api, "token?grant_type=password", ANA))[0] == 200
        (renewed,) = conn.execute("select encrypted_password from auth.users").fetchone() or ()
    assert renewed.startswith("$argon2id$")
    assert (await post(api, "token?grant_type=password", ANA))[0] == 200


async def test_a_banned_user_does_not_get_in(api: Api) -> None:
    _, session = await post(api, "signup", ANA)
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        conn.execute("update auth.users set banned_until = 'infinity'")
    status, error = await post(api, "token?grant_type=password", ANA)
    assert (status, error["error_code"]) == (400, "user_banned")
    # Who does not know the password does not learn of the ban.
    status, error = await post(api, "token?grant_type=password", ANA | {"password": "wrong horse"})
    assert (status, error["error_code"]) == (400, "invalid_credentials")
    bearer = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
    gone = await api.client.get("/auth/v1/user", headers=bearer)
    assert gone.json()["error_code"] == "user_banned"
    refresh = {"refresh_token": session["refresh_token"]}
    assert (await post(api, "token?grant_type=refresh_token", refresh))[0] == 400


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic abc"}, {"apikey": ""}])
async def test_a_request_without_a_key_is_401(api: Api, headers: dict[str, str]) -> None:
    answer = await api.client.get("/rest/v1/x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "no_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_wrong_key_or_token_is_401(api: Api) -> None:
    for headers in (
        {"apikey": "wrong"},
        api.anon | {"Authorization": "Bearer wrong"},
        {"apikey": "wrong", "Authorization": f"Bearer {api.keys.anon}"},
    ):
        answer = await api.client.get("/rest/v1/x", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "PGRST301")
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer error="invalid_token", error_description="')


async def test_the_service_key_is_nobodys_session(api: Api) -> None:
    answer = await api.client.get("/auth/v1/user", headers=api.service)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "no_authorization")
