"""Signing up: what it makes, and what it tells a stranger who asks about another's address."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from tests.api.auth.test_auth import ANA, configure, post
from tests.api.conftest import Api

EVE = {"email": "ana@example.com", "password": "eve's own password"}


def rows(api: Api, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


async def confirming(api: Api) -> None:
    """Addresses are to be confirmed."""
    await configure(api, mail={"is_autoconfirmed": False}, rate_limits={"email_address_s": 0})


def shape(value: Any) -> Any:
    """The value without what differs from user to user."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return type(value)


async def test_a_user_has_an_identity_and_is_confirmed_without_mail(api: Api) -> None:
    _, session = await post(api, "signup", ANA | {"data": {"name": "Ana", "sub": "mine"}})
    user = session["user"]
    (identity,) = user["identities"]
    assert (identity["provider"], identity["id"]) == ("email", user["id"])
    assert identity["identity_data"] == {
        "sub": user["id"],
        "email": "ana@example.com",
        "email_verified": False,
        "phone_verified": False,
        "name": "Ana",
    }
    assert user["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert user["email_confirmed_at"] == user["confirmed_at"]
    assert user["role"] == user["aud"] == "authenticated"
    assert "encrypted_password" not in json.dumps(session)


async def test_a_user_says_nothing_of_himself_that_is_not_his_to_say(api: Api) -> None:
    wanted = {"app_metadata": {"admin": True}, "role": "service_role", "id": "x", "aud": "y"}
    _, session = await post(api, "signup", ANA | wanted)
    assert session["user"]["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert session["user"]["role"] == "authenticated"


async def test_an_unconfirmed_user_has_no_session_and_cannot_sign_in(api: Api) -> None:
    await confirming(api)
    status, user = await post(api, "signup", ANA)
    assert (status, "access_token" in user, "confirmation_sent_at" in user) == (200, False, True)
    assert rows(api, "select id::text, email_confirmed_at from auth.users") == [(user["id"], None)]
    status, error = await post(api, "token?grant_type=password", ANA)
    assert (status, error["error_code"]) == (400, "email_not_confirmed")
    wrong = await post(api, "token?grant_type=password", ANA | {"password": "wrong"})
    assert wrong[1]["error_code"] == "invalid_credentials"


async def test_a_stranger_does_not_learn_who_has_an_account(api: Api) -> None:
    await post(api, "signup", ANA)  # confirmed
    await confirming(api)
    await post(api, "signup", ANA | {"email": "unconfirmed@example.com"})
    answers = [
        await post(api, "signup", EVE | {"email": email, "data": {"name": "Eve"}})
        for email in ("ana@example.com", "unconfirmed@example.com", "nobody@example.com")
    ]
    assert {status for status, _ in answers} == {200}
    shapes = [shape(user) for _, user in answers]
    assert shapes[0] == shapes[1] == shapes[2]
    for _, user in answers:
        assert user["user_metadata"] == {"name": "Eve"}
    ids = {user["id"] for _, user in answers}
    # Asking again tells nothing either.
    again = [await post(api, "signup", EVE | {"email": user["email"]}) for _, user in answers]
    assert not ids & {user["id"] for _, user in again}


async def test_a_repeated_sign_up_changes_nothing_of_a_confirmed_account(api: Api) -> None:
    await post(api, "signup", ANA)
    before = rows(api, "select to_jsonb(u) from auth.users u")
    await confirming(api)
    await post(api, "signup", EVE | {"data": {"name": "Eve"}})
    assert rows(api, "select to_jsonb(u) from auth.users u") == before
    assert rows(api, "select recipient from auth.mail_outbox") == []


async def test_who_signs_up_with_anothers_address_first_does_not_keep_a_password(api: Api) -> None:
    await confirming(api)
    await post(api, "signup", EVE)
    await post(api, "signup", ANA)
    rows(api, "update auth.users set email_confirmed_at = now() returning id")  # by Ana's mail
    for credentials in (EVE, ANA):
        status, error = await post(api, "token?grant_type=password", credentials)
        assert (status, error["error_code"]) == (400, "invalid_credentials")


async def test_nor_who_signs_up_between_the_owner_and_the_mail(api: Api) -> None:
    await confirming(api)
    for credentials in (ANA, EVE, EVE, ANA):
        await post(api, "signup", credentials)
    assert rows(api, "select encrypted_password from auth.users") == [(None,)]


async def test_who_signs_up_twice_keeps_his_password(api: Api) -> None:
    await confirming(api)
    await post(api, "signup", ANA)
    await post(api, "signup", ANA)
    rows(api, "update auth.users set email_confirmed_at = now() returning id")
    assert (await post(api, "token?grant_type=password", ANA))[0] == 200


async def test_of_those_who_take_an_address_at_once_one_gets_it(api: Api) -> None:
    answers = await asyncio.gather(*(post(api, "signup", ANA) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 422, 422, 422]
    assert rows(api, "select count(*) from auth.users") == [(1,)]
    assert rows(api, "select count(*) from auth.sessions") == [(1,)]


async def test_an_anonymous_user_is_one_where_that_is_allowed(api: Api) -> None:
    status, error = await post(api, "signup", {"data": {}})
    assert (status, error["error_code"]) == (422, "anonymous_provider_disabled")
    await configure(api, is_anonymous_enabled=True)
    status, session = await post(api, "signup", {"data": {"cart": 3}})
    user = session["user"]
    assert (status, user["is_anonymous"], user["email"]) == (200, True, "")
    assert (user["identities"], user["app_metadata"]) == ([], {})
    assert user["user_metadata"] == {"cart": 3}


@pytest.mark.parametrize(
    ("settings", "body", "status", "code"),
    [
        ({"is_signup_enabled": False}, ANA, 422, "signup_disabled"),
        ({"is_signup_enabled": False, "is_anonymous_enabled": True}, {}, 422, "signup_disabled"),
        ({"is_email_enabled": False}, ANA, 422, "email_provider_disabled"),
        ({}, {"phone": "+15550100", "password": "correct horse"}, 422, "phone_provider_disabled"),
        ({}, {"email": "ana@example.com"}, 400, "validation_failed"),
        ({}, {"password": "correct horse"}, 400, "validation_failed"),
        ({}, ANA | {"data": {"x": "y" * 5000}}, 400, "validation_failed"),
        ({}, ANA | {"data": {"x": "\0"}}, 400, "validation_failed"),
        ({}, ANA | {"data": [1]}, 400, "validation_failed"),
        ({}, ANA | {"code_challenge": "x"}, 400, "validation_failed"),
        ({"password": {"length_min": 20}}, ANA, 422, "weak_password"),
    ],
)
async def test_what_is_not_allowed_has_its_code(
    api: Api, settings: dict[str, Any], body: dict[str, Any], status: int, code: str
) -> None:
    if settings:
        await configure(api, **settings)
    found, error = await post(api, "signup", body)
    assert (found, error.get("error_code")) == (status, code)
    assert rows(api, "select from auth.users") == []


async def test_a_weak_password_says_why_to_clients_of_each_age(api: Api) -> None:
    weak = ANA | {"password": "short"}
    for version in ({}, {"X-Supabase-Api-Version": "2024-01-01"}):
        status, error = await post(api, "signup", weak, **version)
        assert (status, error["weak_password"]["reasons"]) == (422, ["length"])


async def test_who_signs_in_with_a_password_that_became_weak_is_told(api: Api) -> None:
    await post(api, "signup", ANA)
    await configure(api, password={"length_min": 30})
    status, session = await post(api, "token?grant_type=password", ANA)
    assert (status, session["weak_password"]["reasons"]) == (200, ["length"])


async def test_the_developers_hook_decides_who_may_sign_up(api: Api) -> None:
    api.installation.as_owner("""
      create function public.decide(event jsonb) returns jsonb language sql as $$
        select case when event -> 'user' ->> 'email' like '%@example.com' then '{}' else
          '{"error": {"http_code": 403, "message": "not from here"}}'::jsonb end
      $$
    """)
    await configure(api, hooks={"before_user_created": "public.decide"})
    assert (await post(api, "signup", ANA))[0] == 200
    status, error = await post(api, "signup", ANA | {"email": "eve@evil.example"})
    assert (status, error["msg"]) == (403, "not from here")
    assert rows(api, "select email from auth.users") == [("ana@example.com",)]


async def test_an_anonymous_user_does_not_pass_the_hook_by_an_upgrade(api: Api) -> None:
    api.installation.as_owner("""
      create function public.decide(event jsonb) returns jsonb language sql as $$
        select case when event -> 'user' ->> 'email' in ('', 'ana@example.com') then '{}' else
          '{"error": {"http_code": 403, "message": "not from here"}}'::jsonb end
      $$
    """)
    await configure(api, is_anonymous_enabled=True, hooks={"before_user_created": "public.decide"})
    for is_confirmed in (True, False):
        await configure(api, mail={"is_autoconfirmed": is_confirmed})
        _, session = await post(api, "signup", {})
        headers = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
        change = {"email": "eve@evil.example", "password": "correct horse"}
        answer = await api.client.put("/auth/v1/user", json=change, headers=headers)
        assert (answer.status_code, answer.json()["msg"]) == (403, "not from here")
    answer = await api.client.put("/auth/v1/user", json={"email": ANA["email"]}, headers=headers)
    assert answer.status_code == 200
    assert rows(api, "select email, email_change from auth.users where email is not null") == []


async def test_a_hook_that_fails_lets_nobody_in(api: Api) -> None:
    await configure(api, hooks={"before_user_created": "public.is_not_there"})
    status, error = await post(api, "signup", ANA)
    assert (status, error["error_code"]) == (500, "unexpected_failure")
    assert error["msg"] == "the hook failed"  # the developer's names are in the log
    assert rows(api, "select email from auth.users") == []


async def test_what_the_developers_trigger_says_reaches_the_client(api: Api) -> None:
    api.installation.as_owner("""
      create function public.refuse() returns trigger language plpgsql as $$
        begin raise exception 'invitation only'; end $$;
      create trigger refuse before insert on auth.users
        for each row execute function public.refuse();
    """)
    status, error = await post(api, "signup", ANA)
    assert (status, error["error_code"]) == (500, "unexpected_failure")
    assert error["msg"] == "invitation only"


async def test_one_address_signs_up_only_so_often(api: Api) -> None:
    await configure(api, rate_limits={"signup": {"count": 1, "per_s": 600, "burst": 2}})
    for n in range(2):
        assert (await post(api, "signup", ANA | {"email": f"a{n}@example.com"}))[0] == 200
    answer = await api.client.post("/auth/v1/signup", json=ANA, headers=api.anon)
    assert (answer.status_code, answer.json()["error_code"]) == (429, "over_request_rate_limit")
    assert 0 < int(answer.headers["Retry-After"]) <= 600


async def test_guessing_a_password_is_slow_and_locks_nobody_else_out(api: Api) -> None:
    await post(api, "signup", ANA)
    await configure(api, rate_limits={"sign_in_account": {"count": 1, "per_s": 600, "burst": 3}})
    wrong = ANA | {"password": "wrong horse"}
    statuses = [(await post(api, "token?grant_type=password", wrong))[0] for _ in range(5)]
    assert statuses == [400, 400, 400, 429, 429]
    # From the guesser's address even the right password waits; another account does not.
    assert (await post(api, "token?grant_type=password", ANA))[0] == 429
    other = ANA | {"email": "bob@example.com"}
    assert (await post(api, "signup", other))[0] == 200
    assert (await post(api, "token?grant_type=password", other))[0] == 200
    # From elsewhere the owner gets in: the limit is of the address and the account together.
    rows(api, "select count(*) from auth.rate_limits")
    assert await signs_in_from(api, "198.51.100.9", ANA)


async def signs_in_from(api: Api, ip: str, credentials: dict[str, str]) -> bool:
    """By way of a proxy on this machine, which tells whose request it is."""
    answer = await api.client.post(
        "/auth/v1/token?grant_type=password",
        json=credentials,
        headers=api.anon | {"X-Forwarded-For": ip},
    )
    return answer.status_code == 200
