"""Users as administrators make, change, delete and list them."""

import re
from typing import Any

import argon2
import bcrypt
import psycopg
import pytest

from butterbase.api.auth.passwords import Passwords
from tests.api.auth.admin.conftest import (
    ANA,
    NOBODY,
    call,
    create,
    modify,
    refresh,
    refused,
    sign_in,
)
from tests.api.conftest import Api


def execute(api: Api, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


async def test_a_user_who_is_created_may_sign_in(api: Api) -> None:
    made = await create(
        api,
        **ANA,
        email_confirm=True,
        user_metadata={"name": "Ana"},
        app_metadata={"plan": "pro"},
        id=NOBODY,
    )
    assert (made["id"], made["email"], made["role"]) == (NOBODY, ANA["email"], "authenticated")
    assert made["app_metadata"] == {"provider": "email", "providers": ["email"], "plan": "pro"}
    assert made["user_metadata"] == {"name": "Ana"}
    assert made["email_confirmed_at"]
    (identity,) = made["identities"]
    assert (identity["provider"], identity["id"]) == ("email", NOBODY)
    assert identity["identity_data"]["email_verified"] is True
    assert (await sign_in(api, **ANA)).status_code == 200
    assert (await call(api, "GET", f"admin/users/{NOBODY}")).json()["id"] == NOBODY


async def test_a_user_may_have_an_address_and_a_phone(api: Api) -> None:
    made = await create(api, **ANA, phone="+49 170 1234567", phone_confirm=True)
    assert (made["phone"], made["app_metadata"]["providers"]) == (
        "491701234567",
        ["email", "phone"],
    )
    assert {identity["provider"] for identity in made["identities"]} == {"email", "phone"}
    assert "phone_confirmed_at" in made
    assert "email_confirmed_at" not in made
    by_phone = await create(api, phone="+4917012345678")
    assert by_phone["app_metadata"] == {"provider": "phone", "providers": ["phone"]}


async def test_an_unconfirmed_user_does_not_get_in(api: Api) -> None:
    await create(api, **ANA)
    assert refused(await sign_in(api, **ANA)) == (400, "email_not_confirmed")


@pytest.mark.parametrize(
    "hashed",
    [
        argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=2).hash("correct horse"),
        argon2.PasswordHasher(
            time_cost=1, memory_cost=8192, parallelism=1, type=argon2.low_level.Type.I
        ).hash("correct horse"),
        bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode(),
        bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4, b"2a")).decode(),
    ],
    ids=["argon2id", "argon2i", "bcrypt 2b", "bcrypt 2a"],
)
async def test_hashes_of_other_systems_verify_and_are_renewed(api: Api, hashed: str) -> None:
    await create(api, email=ANA["email"], password_hash=hashed, email_confirm=True)
    assert (await sign_in(api, ANA["email"], "wrong")).status_code == 400
    assert (await sign_in(api, **ANA)).status_code == 200
    ((stored,),) = execute(api, "select encrypted_password from auth.users")
    assert stored.startswith("$argon2id$v=19$")
    assert not Passwords.is_outdated(stored)
    assert (await sign_in(api, **ANA)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "validation_failed"),
        ({"email": ""}, "validation_failed"),
        ({"email": "no address"}, "email_address_invalid"),
        ({"phone": "12x"}, "validation_failed"),
        ({"email": "a@x.yz", "password": "short"}, "weak_password"),
        ({"email": "a@x.yz", "password_hash": "plain"}, "validation_failed"),
        (
            {"email": "a@x.yz", "password_hash": "$argon2id$v=19$m=99999999,t=9,p=1$YQ$YQ"},
            "validation_failed",
        ),
        ({"email": "a@x.yz", "password_hash": "$2b$31$" + "a" * 53}, "validation_failed"),
        ({**ANA, "password_hash": "$2b$04$" + "a" * 53}, "validation_failed"),
        ({"email": "a@x.yz", "ban_duration": "1 day"}, "validation_failed"),
        ({"email": "a@x.yz", "role": "postgres"}, "validation_failed"),
        ({"email": "a@x.yz", "id": "x"}, "validation_failed"),
        ({"email": "a@x.yz", "user_metadata": {"x": "y" * 5000}}, "validation_failed"),
        ({"email": "a@x.yz", "app_metadata": {"x": "\0"}}, "validation_failed"),
        ({"email": "a\0@x.yz"}, "email_address_invalid"),
    ],
)
async def test_what_is_no_user_is_not_created(api: Api, body: Any, code: str) -> None:
    answer = await call(api, "POST", "admin/users", body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error_code"] == code
    assert execute(api, "select 1 from auth.users") == []


async def test_addresses_phones_and_ids_are_one_users(api: Api) -> None:
    made = await create(api, **ANA, phone="4917012345678")
    again = await call(api, "POST", "admin/users", {"email": "ANA@example.com"})
    assert refused(again) == (422, "email_exists")
    again = await call(api, "POST", "admin/users", {"phone": "+4917012345678"})
    assert refused(again) == (422, "phone_exists")
    again = await call(api, "POST", "admin/users", {"email": "b@x.yz", "id": made["id"]})
    assert again.json()["error_code"] == "validation_failed"
    bob = await create(api, email="bob@example.com")
    for body, code in (
        ({"email": "Ana@Example.com"}, "email_exists"),
        ({"phone": "4917012345678"}, "phone_exists"),
    ):
        answer = await call(api, "PUT", f"admin/users/{bob['id']}", body)
        assert refused(answer) == (422, code)
    assert len(execute(api, "select 1 from auth.users")) == 2


async def test_metadata_is_merged_and_null_takes_away(api: Api) -> None:
    made = await create(api, **ANA, user_metadata={"a": 1, "b": {"c": None}}, app_metadata={"x": 1})
    changed = await modify(
        api, made, user_metadata={"a": None, "d": 2}, app_metadata={"x": None, "y": [None]}
    )
    assert changed["user_metadata"] == {"b": {"c": None}, "d": 2}
    assert changed["app_metadata"] == {"provider": "email", "providers": ["email"], "y": [None]}
    assert await modify(api, made) | {"updated_at": 0} == changed | {"updated_at": 0}


async def test_a_new_address_is_the_users_at_once(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    changed = await modify(api, made, email="Ana@New.example", email_confirm=True)
    assert changed["email"] == "ana@new.example"
    assert changed["identities"][0]["identity_data"]["email"] == "ana@new.example"
    assert (await sign_in(api, **ANA)).status_code == 400
    assert (await sign_in(api, "ana@new.example", ANA["password"])).status_code == 200


async def test_a_link_mailed_to_the_old_address_opens_nothing(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    body = {"type": "recovery", "email": ANA["email"]}
    link = (await call(api, "POST", "admin/generate_link", body)).json()
    await modify(api, made, email="ana@new.example", email_confirm=True)
    body = {"type": "recovery", "token_hash": link["hashed_token"]}
    assert refused(await call(api, "POST", "verify", body, api.anon)) == (403, "otp_expired")


async def test_a_new_password_ends_the_sessions_of_the_old_one(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    session = (await sign_in(api, **ANA)).json()
    await modify(api, made, password="another horse")
    assert (await refresh(api, session)).status_code == 400
    assert (await sign_in(api, **ANA)).status_code == 400
    assert (await sign_in(api, ANA["email"], "another horse")).status_code == 200


async def test_a_banned_user_is_out_at_once_until_the_ban_ends(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    session = (await sign_in(api, **ANA)).json()
    banned = await modify(api, made, ban_duration="24h")
    assert re.match(r"\d{4}-", banned["banned_until"])
    assert (await sign_in(api, **ANA)).json()["error_code"] == "user_banned"
    assert (await refresh(api, session)).status_code == 400
    assert execute(api, "select 1 from auth.sessions") == []
    freed = await modify(api, made, ban_duration="none")
    assert "banned_until" not in freed
    assert (await sign_in(api, **ANA)).status_code == 200


async def test_a_role_is_in_the_next_tokens_and_taking_it_ends_the_sessions(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True, role="service_role")
    session = (await sign_in(api, **ANA)).json()
    bearer = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
    assert (await call(api, "GET", "admin/users", headers=bearer)).status_code == 200
    await modify(api, made, role="authenticated")
    assert (await refresh(api, session)).status_code == 400


async def test_a_deleted_user_is_gone(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    await sign_in(api, **ANA)
    answer = await call(api, "DELETE", f"admin/users/{made['id']}", {"should_soft_delete": False})
    assert (answer.status_code, answer.json()) == (200, {})
    for table in ("users", "identities", "sessions"):
        assert execute(api, f"table auth.{table}") == []
    again = await call(api, "DELETE", f"admin/users/{made['id']}")
    assert refused(again) == (404, "user_not_found")


async def test_a_softly_deleted_user_leaves_a_row_and_nothing_personal(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True, user_metadata={"name": "Ana"})
    session = (await sign_in(api, **ANA)).json()
    answer = await call(api, "DELETE", f"admin/users/{made['id']}", {"should_soft_delete": True})
    assert answer.status_code == 200
    left = (await call(api, "GET", f"admin/users/{made['id']}")).json()
    assert left["deleted_at"]
    assert (left["email"], left["user_metadata"], left["identities"]) == ("", {}, [])
    ((row,),) = execute(api, "select to_jsonb(u)::text from auth.users u")
    assert "ana" not in row.lower()
    assert (await refresh(api, session)).status_code == 400
    assert (await sign_in(api, **ANA)).status_code == 400
    assert (await create(api, **ANA))["id"] != made["id"], "the address is free again"
    change = await call(api, "PUT", f"admin/users/{made['id']}", {"role": "service_role"})
    assert refused(change) == (404, "user_not_found")


async def test_a_user_whom_rows_refer_to_is_not_deleted(api: Api) -> None:
    made = await create(api, **ANA)
    api.installation.as_owner("create table posts (author uuid references auth.users (id))")
    execute(api, "insert into posts values (%s)", made["id"])
    answer = await call(api, "DELETE", f"admin/users/{made['id']}")
    assert refused(answer) == (409, "conflict")
    assert "posts" in answer.json()["msg"]


async def test_users_are_listed_in_pages_the_newest_first(api: Api) -> None:
    for number in range(5):
        await create(api, email=f"user{number}@example.com")
    first = await call(api, "GET", "admin/users?page=&per_page=2")
    assert first.json()["aud"] == "authenticated"
    assert [u["email"] for u in first.json()["users"]] == [
        "user4@example.com",
        "user3@example.com",
    ]
    assert first.headers["X-Total-Count"] == "5"
    assert first.headers["Link"] == (
        '</auth/v1/admin/users?page=2&per_page=2>; rel="next", '
        '</auth/v1/admin/users?page=3&per_page=2>; rel="last"'
    )
    last = await call(api, "GET", "admin/users?page=3&per_page=2")
    assert [user["email"] for user in last.json()["users"]] == ["user0@example.com"]
    assert 'rel="next"' not in last.headers["Link"]
    beyond = await call(api, "GET", "admin/users?page=9&per_page=2")
    assert (beyond.json()["users"], beyond.headers["X-Total-Count"]) == ([], "5")


async def test_users_are_found_by_address_or_name(api: Api) -> None:
    await create(api, email="ana@example.com", user_metadata={"full_name": "Ana_Maria"})
    await create(api, email="bob@example.com")
    for text, count in (("ANA", 1), ("ana_m", 1), ("example", 2), ("%", 0), ("_", 1)):
        answer = await call(api, "GET", f"admin/users?filter={text}")
        assert len(answer.json()["users"]) == count, text
        assert answer.headers["X-Total-Count"] == str(count)


@pytest.mark.parametrize("query", ["page=-1", "per_page=x", "filter=%00"])
async def test_what_is_no_page_is_refused(api: Api, query: str) -> None:
    answer = await call(api, "GET", f"admin/users?{query}")
    assert refused(answer) == (400, "validation_failed")


async def test_what_is_no_id_or_nobodys_is_404(api: Api) -> None:
    assert refused(await call(api, "GET", "admin/users/x")) == (404, "validation_failed")
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        answer = await call(api, method, f"admin/users/{NOBODY}", body)
        assert refused(answer) == (404, "user_not_found")
    for path in ("factors", "sessions"):
        answer = await call(api, "GET", f"admin/users/{NOBODY}/{path}")
        assert refused(answer) == (404, "user_not_found")


async def test_a_deletion_that_is_nested_too_deeply_is_refused(api: Api) -> None:
    made = await create(api, **ANA)
    body = b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    answer = await api.client.request(
        "DELETE", f"/auth/v1/admin/users/{made['id']}", content=body, headers=api.service
    )
    assert refused(answer) == (400, "validation_failed")
