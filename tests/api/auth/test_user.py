"""What a signed-in user sees and changes of himself, and what a stolen access token does not."""

import json
from typing import Any

import jwt
import psycopg
import pytest

from butterbase.api.auth.tokens import TokenSubject
from tests.api.auth.test_auth import ANA, configure, post
from tests.api.auth.test_signup import rows
from tests.api.conftest import Api

NEW = "a new password"


async def sign_up(api: Api, **body: Any) -> dict[str, Any]:
    """A session."""
    status, session = await post(api, "signup", ANA | body)
    assert status == 200, session
    assert isinstance(session, dict)
    return session


async def sign_in(api: Api, **changes: str) -> dict[str, Any]:
    status, session = await post(api, "token?grant_type=password", ANA | changes)
    assert status == 200, session
    assert isinstance(session, dict)
    return session


def bearer(api: Api, session: dict[str, Any]) -> dict[str, str]:
    return api.anon | {"Authorization": f"Bearer {session['access_token']}"}


async def put(api: Api, session: dict[str, Any], **body: Any) -> tuple[int, Any]:
    answer = await api.client.put("/auth/v1/user", json=body, headers=bearer(api, session))
    return answer.status_code, answer.json()


async def get(api: Api, session: dict[str, Any]) -> tuple[int, Any]:
    answer = await api.client.get("/auth/v1/user", headers=bearer(api, session))
    return answer.status_code, answer.json()


def sessions_there(api: Api) -> int:
    ((count,),) = rows(api, "select count(*) from auth.sessions")
    assert isinstance(count, int)
    return count


def start_sessions_earlier(api: Api, interval: str) -> None:
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        conn.execute("update auth.sessions set created_at = created_at - %s::interval", [interval])


async def test_a_user_is_seen_by_itself_alone(api: Api) -> None:
    session = await sign_up(api)
    assert await get(api, session) == (200, session["user"])
    for headers in (api.anon, api.service):
        answer = await api.client.get("/auth/v1/user", headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "no_authorization")


async def test_an_answer_with_a_session_is_kept_by_no_cache(api: Api) -> None:
    answer = await api.client.post("/auth/v1/signup", json=ANA, headers=api.anon)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("claim", ["sub", "session_id"])
async def test_an_access_token_that_names_nobody_is_refused(api: Api, claim: str) -> None:
    ids = {
        "sub": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "session_id": "7c9e6679-7425-40de-944b-e07fc1f90ae8",
    }
    for value, code in (("x'; --", "bad_jwt"), (ids[claim], "session_not_found")):
        claims = {"role": "authenticated"} | ids | {claim: value}
        token = jwt.encode(claims, api.keys.jwt_secret, "HS256")
        status, error = await get(api, {"access_token": token})
        assert (status, error["error_code"]) == (403, code)


async def test_metadata_is_merged_and_null_takes_a_member_away(api: Api) -> None:
    session = await sign_up(api, data={"name": "Ana", "age": 30, "kept": {"a": None}})
    status, user = await put(api, session, data={"age": None, "city": "Graz"})
    assert status == 200
    assert user["user_metadata"] == {"name": "Ana", "kept": {"a": None}, "city": "Graz"}


async def test_metadata_does_not_grow_without_end(api: Api) -> None:
    session = await sign_up(api)
    found = [(await put(api, session, data={f"m{n}": "x" * 3000}))[0] for n in range(4)]
    assert found[0] == 200
    assert found[-1] == 400


async def test_app_metadata_is_not_the_users_to_change(api: Api) -> None:
    session = await sign_up(api)
    for value in ({"admin": True}, None):
        status, error = await put(api, session, app_metadata=value)
        assert (status, error["error_code"]) == (403, "not_admin")
    _, user = await get(api, session)
    assert user["app_metadata"] == {"provider": "email", "providers": ["email"]}


async def test_a_new_password_ends_every_other_session(api: Api) -> None:
    stolen = await sign_up(api)
    own = await sign_in(api)
    status, _ = await put(api, own, password=NEW)
    assert status == 200
    assert sessions_there(api) == 1
    status, error = await get(api, stolen)
    assert (status, error["error_code"]) == (403, "session_not_found")
    assert (await get(api, own))[0] == 200
    assert (await post(api, "token?grant_type=password", ANA))[0] == 400
    await sign_in(api, password=NEW)
    ((count,),) = rows(
        api,
        "select count(*) from auth.audit_log_entries"
        " where payload->>'action' = 'user_updated_password'",
    )
    assert count == 1


@pytest.mark.parametrize(
    ("password", "status", "code"),
    [
        (ANA["password"], 422, "same_password"),
        ("short", 422, "weak_password"),
        ("x" * 2000, 422, "weak_password"),
    ],
)
async def test_a_password_that_will_not_do(api: Api, password: str, status: int, code: str) -> None:
    session = await sign_up(api)
    found, error = await put(api, session, password=password)
    assert (found, error["error_code"]) == (status, code)
    await sign_in(api)


async def test_the_current_password_is_asked_for_where_that_is_the_rule(api: Api) -> None:
    await configure(api, is_current_password_required=True)
    session = await sign_up(api)
    for current, code in (
        ({}, "current_password_required"),
        ({"current_password": "wrong horse"}, "current_password_invalid"),
    ):
        status, error = await put(api, session, password=NEW, **current)
        assert (status, error["error_code"]) == (400, code)
    current = {"current_password": ANA["password"]}
    assert (await put(api, session, password=NEW, **current))[0] == 200


async def test_who_recovers_an_account_need_not_know_its_password(api: Api) -> None:
    await configure(api, is_current_password_required=True)
    session = await sign_up(api)
    rows(api, """update auth.sessions set amr = '[{"method": "recovery"}]' returning id""")
    assert (await put(api, session, password=NEW))[0] == 200


async def test_an_old_session_reauthenticates_before_a_new_password(api: Api) -> None:
    await configure(api, is_reauthentication_required=True)
    session = await sign_up(api)
    start_sessions_earlier(api, "25 hours")
    status, error = await put(api, session, password=NEW)
    assert (status, error["error_code"]) == (400, "reauthentication_needed")
    status, error = await put(api, session, password=NEW, nonce="123456")
    assert (status, error["error_code"]) == (422, "reauthentication_not_valid")
    await sign_in(api)


async def test_a_second_factor_guards_password_and_address(api: Api) -> None:
    session = await sign_up(api)
    rows(
        api,
        "insert into auth.mfa_factors (user_id, factor_type, status)"
        " select id, 'totp', 'verified' from auth.users returning id",
    )
    for change in ({"password": NEW}, {"email": "new@example.com"}):
        status, error = await put(api, session, **change)
        assert (status, error["error_code"]) == (401, "insufficient_aal")
    assert (await put(api, session, data={"x": 1}))[0] == 200


async def test_a_permanent_user_confirms_a_new_address_first(api: Api) -> None:
    session = await sign_up(api)
    status, user = await put(api, session, email="New@Example.com")
    assert (status, user["email"], user["new_email"]) == (200, ANA["email"], "new@example.com")
    assert rows(api, "select email from auth.users") == [(ANA["email"],)]


async def test_an_address_is_not_told_to_be_taken(api: Api) -> None:
    await post(api, "signup", ANA | {"email": "bob@example.com"})
    session = await sign_up(api)
    for email in ("bob@example.com", "nobody@example.com"):
        rows(api, "delete from auth.rate_limits returning key")
        status, user = await put(api, session, email=email)
        assert (status, user["new_email"]) == (200, email)


async def anonymous(api: Api) -> dict[str, Any]:
    await configure(api, is_anonymous_enabled=True)
    status, session = await post(api, "signup", {})
    assert status == 200
    assert isinstance(session, dict)
    return session


async def test_an_anonymous_user_becomes_a_permanent_one_and_stays_the_same(api: Api) -> None:
    session = await anonymous(api)
    status, user = await put(api, session, email=ANA["email"], password=ANA["password"])
    assert (status, user["id"]) == (200, session["user"]["id"])
    assert (user["email"], user["is_anonymous"]) == (ANA["email"], False)
    assert [identity["provider"] for identity in user["identities"]] == ["email"]
    assert user["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert (await sign_in(api))["user"]["id"] == user["id"]


async def test_an_anonymous_user_does_not_take_anothers_address(api: Api) -> None:
    await post(api, "signup", ANA)
    session = await anonymous(api)
    status, error = await put(api, session, email=ANA["email"], password=NEW)
    assert (status, error["error_code"]) == (422, "email_exists")
    _, user = await get(api, session)
    assert (user["is_anonymous"], user["email"]) == (True, "")
    await sign_in(api)  # nothing of it happened
    assert rows(api, "select count(*) from auth.users where encrypted_password is not null") == [
        (1,)
    ]


async def test_an_anonymous_user_confirms_an_address_where_that_is_the_rule(api: Api) -> None:
    session = await anonymous(api)
    await configure(api, mail={"is_autoconfirmed": False})
    status, user = await put(api, session, email=ANA["email"])
    assert (status, user["is_anonymous"], user["email"]) == (200, True, "")
    assert user["new_email"] == ANA["email"]


async def test_a_password_without_an_address_is_nobodys(api: Api) -> None:
    session = await anonymous(api)
    status, error = await put(api, session, password=NEW)
    assert (status, error["error_code"]) == (422, "validation_failed") or status == 400


async def test_a_first_password_is_one_more_way_to_sign_in(api: Api) -> None:
    session = await sign_up(api)
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:  # as with OAuth
        conn.execute(
            "update auth.users set encrypted_password = null, raw_app_meta_data ="
            """ '{"provider": "github", "providers": ["github"]}'"""
        )
        conn.execute("update auth.identities set provider = 'github'")
    status, user = await put(api, session, password=NEW)
    assert status == 200
    assert user["app_metadata"] == {"provider": "github", "providers": ["github", "email"]}
    assert {identity["provider"] for identity in user["identities"]} == {"github", "email"}
    await sign_in(api, password=NEW)


async def test_a_signed_out_token_changes_nothing(api: Api) -> None:
    session = await sign_up(api)
    await api.client.post("/auth/v1/logout?scope=local", headers=bearer(api, session))
    status, error = await put(api, session, password=NEW)
    assert (status, error["error_code"]) == (403, "session_not_found")
    await sign_in(api)


async def test_an_unknown_scope_ends_nothing(api: Api) -> None:
    session = await sign_up(api)
    url = "/auth/v1/logout?scope=everything"
    answer = await api.client.post(url, headers=bearer(api, session))
    assert answer.status_code == 400
    assert sessions_there(api) == 1


async def test_an_empty_scope_is_none(api: Api) -> None:
    session = await sign_up(api)
    await sign_in(api)
    answer = await api.client.post("/auth/v1/logout?scope=", headers=bearer(api, session))
    assert answer.status_code == 204
    assert sessions_there(api) == 0


async def test_an_expired_token_is_told_in_the_clients_words(api: Api) -> None:
    session = await sign_up(api)
    claims = jwt.decode(session["access_token"], options={"verify_signature": False})
    from butterbase.api.auth.tokens import Tokens

    subject = TokenSubject(claims["sub"], "a@b.c", claims["session_id"], {}, {})
    old = Tokens(api.keys).sign(subject, now_s=claims["iat"] - 7200, life_s=60)
    answer = await api.client.get(
        "/auth/v1/user",
        headers=bearer(api, {"access_token": old}) | {"X-Supabase-Api-Version": "2024-01-01"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "bad_jwt")
    assert answer.headers["X-Sb-Error-Code"] == "bad_jwt"


async def test_what_is_not_there_is_told_in_the_clients_words(api: Api) -> None:
    answer = await api.client.get("/auth/v1/no_such_path", headers=api.anon)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")
    assert json.loads(answer.content)["msg"]
