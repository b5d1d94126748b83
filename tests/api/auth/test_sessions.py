"""Sessions against a database, as who holds or steals their tokens sees them."""

import asyncio
import base64
import json
from typing import Any

import jwt
import psycopg
import pytest

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import sessions
from butterbase.api.auth.errors import (
    AuthError,
    HookError,
    InvalidCredentialsError,
    OverRequestRateLimitError,
    RefreshTokenError,
    RefreshTokenReusedError,
    SessionExpiredError,
    SessionNotFoundError,
    UserBannedError,
)
from tests.api.auth.conftest import NOW_S, at, configure, new_user
from tests.installation import Installation

HOUR_S = 3600


async def sign_in(app: AppRuntime, user_id: str, *, now_s: float = NOW_S) -> dict[str, Any]:
    found = json.loads(await sessions.issue(app, user_id, method="password", caller=at(now_s)))
    assert isinstance(found, dict)
    return found


async def refresh(app: AppRuntime, session: dict[str, Any], now_s: float) -> dict[str, Any]:
    found = json.loads(await sessions.refresh(app, session["refresh_token"], caller=at(now_s)))
    assert isinstance(found, dict)
    return found


def claims_of(session: dict[str, Any]) -> dict[str, Any]:
    return jwt.decode(session["access_token"], options={"verify_signature": False})


def rows(installation: Installation, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(installation.main.dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


async def test_a_session_is_what_clients_expect(runtime: AppRuntime) -> None:
    user_id = await new_user(runtime)
    session = await sign_in(runtime, user_id)
    assert session.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "expires_at",
        "refresh_token",
        "user",
    }
    assert session["expires_at"] == NOW_S + session["expires_in"]
    claims = claims_of(session)
    assert claims["sub"] == user_id == session["user"]["id"]
    assert claims["aud"] == claims["role"] == "authenticated"
    assert claims["amr"] == [{"method": "password", "timestamp": NOW_S}]
    assert (claims["aal"], claims["is_anonymous"]) == ("aal1", False)
    assert claims["exp"] == session["expires_at"]
    assert runtime.tokens.verify(session["access_token"], now_s=NOW_S).session_id


async def test_a_stolen_token_that_is_used_late_ends_the_session(
    runtime: AppRuntime, installation: Installation
) -> None:
    stolen = await sign_in(runtime, await new_user(runtime))
    owner = await refresh(runtime, stolen, NOW_S + HOUR_S)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(runtime, stolen, NOW_S + HOUR_S + 60)
    with pytest.raises(RefreshTokenError):  # the owner has to sign in again, and so learns of it
        await refresh(runtime, owner, NOW_S + HOUR_S + 61)
    assert rows(installation, "select from auth.sessions") == []
    ((told,),) = rows(
        installation,
        "select payload from auth.audit_log_entries where payload->>'action' = 'token_reused'",
    )
    assert told["traits"]["session_id"] == claims_of(stolen)["session_id"]
    assert told["actor_id"] == stolen["user"]["id"]


async def test_the_thief_who_is_first_loses_it_with_the_owners_next_refresh(
    runtime: AppRuntime,
) -> None:
    owner = await sign_in(runtime, await new_user(runtime))
    thief = await refresh(runtime, owner, NOW_S + 10)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(runtime, owner, NOW_S + HOUR_S)
    with pytest.raises(RefreshTokenError):
        await refresh(runtime, thief, NOW_S + HOUR_S)


async def test_a_lost_answer_is_given_again_within_the_grace(runtime: AppRuntime) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    lost = await refresh(runtime, session, NOW_S + 100)
    again = await refresh(runtime, session, NOW_S + 109)
    assert again["refresh_token"] == lost["refresh_token"]
    assert await refresh(runtime, again, NOW_S + 110)


async def test_an_older_token_than_the_last_but_one_has_no_grace(runtime: AppRuntime) -> None:
    first = await sign_in(runtime, await new_user(runtime))
    second = await refresh(runtime, first, NOW_S + 1)
    await refresh(runtime, second, NOW_S + 2)
    with pytest.raises(RefreshTokenReusedError):
        await refresh(runtime, first, NOW_S + 3)


async def test_refreshes_at_once_agree_on_one_new_token(
    runtime: AppRuntime, installation: Installation
) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    found = await asyncio.gather(*(refresh(runtime, session, NOW_S + 100) for _ in range(20)))
    assert len({one["refresh_token"] for one in found}) == 1
    assert rows(installation, "select refresh_counter from auth.sessions") == [(1,)]


async def test_a_thousand_guesses_reach_no_session(runtime: AppRuntime) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    token = session["refresh_token"]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for n in range(1000):
        guess = base64.urlsafe_b64encode(raw[:-16] + n.to_bytes(16, "big")).decode().rstrip("=")
        with pytest.raises(RefreshTokenError):
            await refresh(runtime, {"refresh_token": guess}, NOW_S)
    assert await refresh(runtime, session, NOW_S)


async def test_nothing_at_rest_opens_a_session(
    runtime: AppRuntime, installation: Installation
) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    session = await refresh(runtime, session, NOW_S + 100)
    token = session["refresh_token"]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    kept = str(rows(installation, "select to_jsonb(s) from auth.sessions s"))
    kept += str(rows(installation, "select to_jsonb(u) from auth.users u"))
    kept += str(rows(installation, "select to_jsonb(a) from auth.audit_log_entries a"))
    assert token not in kept
    assert raw[-16:].hex() not in kept
    assert session["access_token"] not in kept


async def test_a_token_of_another_app_is_nothing_here(runtime: AppRuntime) -> None:
    from butterbase.api.auth.refresh_tokens import RefreshTokens

    session = await sign_in(runtime, await new_user(runtime))
    token = runtime.auth.refresh_tokens.decode(session["refresh_token"])
    other = RefreshTokens(runtime.auth.master_key.derive_bytes("refresh:other", length=32))
    with pytest.raises(RefreshTokenError):
        await refresh(runtime, {"refresh_token": other.encode(token)}, NOW_S)


async def test_a_session_ends_with_its_time_box_and_so_do_its_access_tokens(
    runtime: AppRuntime, installation: Installation
) -> None:
    await configure(runtime, sessions={"timebox_s": 2 * HOUR_S})
    session = await sign_in(runtime, await new_user(runtime))
    late = await refresh(runtime, session, NOW_S + 2 * HOUR_S - 60)
    assert claims_of(late)["exp"] == NOW_S + 2 * HOUR_S
    with pytest.raises(SessionExpiredError):
        await refresh(runtime, late, NOW_S + 2 * HOUR_S)
    assert rows(installation, "select from auth.sessions") == []


async def test_a_session_that_rests_too_long_ends(runtime: AppRuntime) -> None:
    await configure(runtime, sessions={"inactivity_s": HOUR_S})
    session = await sign_in(runtime, await new_user(runtime))
    for n in range(1, 4):
        session = await refresh(runtime, session, NOW_S + n * (HOUR_S - 1))
    with pytest.raises(SessionExpiredError, match="Inactivity"):
        await refresh(runtime, session, NOW_S + 3 * (HOUR_S - 1) + HOUR_S)


async def test_with_one_session_a_user_the_latest_sign_in_has_it(
    runtime: AppRuntime, installation: Installation
) -> None:
    await configure(runtime, sessions={"is_single_per_user": True})
    user_id = await new_user(runtime)
    await asyncio.gather(*(sign_in(runtime, user_id) for _ in range(8)))
    assert rows(installation, "select count(*) from auth.sessions") == [(1,)]


async def test_who_had_several_sessions_keeps_the_latest_when_one_is_the_rule(
    runtime: AppRuntime,
) -> None:
    user_id = await new_user(runtime)
    old, new = await sign_in(runtime, user_id), await sign_in(runtime, user_id, now_s=NOW_S + 1)
    await configure(runtime, sessions={"is_single_per_user": True})
    with pytest.raises(SessionExpiredError, match="Newer Login"):
        await refresh(runtime, old, NOW_S + 100)
    assert await refresh(runtime, new, NOW_S + 100)


async def test_a_banned_user_starts_and_refreshes_no_session(
    runtime: AppRuntime, installation: Installation
) -> None:
    user_id = await new_user(runtime)
    session = await sign_in(runtime, user_id)
    rows(installation, "update auth.users set banned_until = 'infinity' returning id")
    for refused in (sign_in(runtime, user_id), refresh(runtime, session, NOW_S + 1)):
        with pytest.raises(UserBannedError):
            await refused
    until_now = "update auth.users set banned_until = to_timestamp({}) returning id"
    rows(installation, until_now.format(NOW_S))
    assert await refresh(runtime, session, NOW_S + 1)


async def test_a_deleted_user_has_no_sessions(
    runtime: AppRuntime, installation: Installation
) -> None:
    user_id = await new_user(runtime)
    session = await sign_in(runtime, user_id)
    rows(installation, "update auth.users set deleted_at = now() returning id")
    with pytest.raises(RefreshTokenError):
        await refresh(runtime, session, NOW_S + 1)
    with pytest.raises(InvalidCredentialsError):
        await sign_in(runtime, user_id)


async def test_a_session_does_not_start_by_a_password_that_was_changed_meanwhile(
    runtime: AppRuntime, installation: Installation
) -> None:
    user_id = await new_user(runtime)
    rows(installation, "update auth.users set encrypted_password = 'new' returning id")
    with pytest.raises(InvalidCredentialsError):
        await sessions.issue(
            runtime, user_id, method="password", caller=at(), old_password_hash="old"
        )


async def test_an_upgraded_session_is_the_same_one_and_its_old_tokens_are_void(
    runtime: AppRuntime,
) -> None:
    user_id = await new_user(runtime)
    stolen = await sign_in(runtime, user_id)
    session_id = claims_of(stolen)["session_id"]
    factor_id = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    upgraded = json.loads(
        await sessions.upgrade(
            runtime,
            session_id,
            user_id,
            method="totp",
            aal="aal2",
            caller=at(NOW_S + 5),
            factor_id=factor_id,
        )
    )
    claims = claims_of(upgraded)
    assert (claims["session_id"], claims["aal"]) == (session_id, "aal2")
    assert [method["method"] for method in claims["amr"]] == ["totp", "password"]
    with pytest.raises(RefreshTokenError):  # not even within the grace: it would be aal2
        await refresh(runtime, stolen, NOW_S + 6)
    kept = claims_of(await refresh(runtime, upgraded, NOW_S + 7))
    assert (kept["aal"], kept["amr"]) == ("aal2", claims["amr"])


async def test_nobody_upgrades_the_session_of_another(runtime: AppRuntime) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    other = await new_user(runtime, "eve@example.com")
    with pytest.raises(SessionNotFoundError):
        await sessions.upgrade(
            runtime,
            claims_of(session)["session_id"],
            other,
            method="totp",
            aal="aal2",
            caller=at(),
        )


async def test_a_client_gone_wild_is_slowed_down_and_no_other_one(runtime: AppRuntime) -> None:
    await configure(runtime, rate_limits={"refresh": {"count": 1, "per_s": 10, "burst": 3}})
    user_id = await new_user(runtime)
    wild, calm = await sign_in(runtime, user_id), await sign_in(runtime, user_id)
    for _ in range(3):
        wild = await refresh(runtime, wild, NOW_S)
    with pytest.raises(OverRequestRateLimitError) as refused:
        await refresh(runtime, wild, NOW_S)
    assert refused.value.retry_after_s == 10
    assert await refresh(runtime, calm, NOW_S)
    assert await refresh(runtime, wild, NOW_S + 10)


async def test_sessions_are_listed_without_what_makes_tokens(runtime: AppRuntime) -> None:
    user_id = await new_user(runtime)
    await sign_in(runtime, user_id)
    (listed,) = json.loads(await sessions.listed(runtime, user_id))
    assert (listed["ip"], listed["user_agent"], listed["aal"]) == ("203.0.113.7", "test", "aal1")
    assert not {"refresh_nonce", "refresh_counter"} & listed.keys()


@pytest.mark.parametrize(
    ("scope", "left"), [("local", {"other"}), ("others", {"own"}), ("global", set())]
)
async def test_signing_out_ends_what_its_scope_says_and_nothing_of_others(
    runtime: AppRuntime, scope: sessions.Scope, left: set[str]
) -> None:
    user_id, stranger_id = await new_user(runtime), await new_user(runtime, "eve@example.com")
    own, other = await sign_in(runtime, user_id), await sign_in(runtime, user_id)
    stranger = await sign_in(runtime, stranger_id)
    await runtime.service.run(sessions.end_statement(user_id, claims_of(own)["session_id"], scope))
    still = set()
    for name, session in {"own": own, "other": other}.items():
        try:
            await refresh(runtime, session, NOW_S + 1)
            still.add(name)
        except AuthError:
            pass
    assert still == left
    assert await refresh(runtime, stranger, NOW_S + 1)


async def test_nobody_ends_the_session_of_another(runtime: AppRuntime) -> None:
    session = await sign_in(runtime, await new_user(runtime))
    eve = await new_user(runtime, "eve@example.com")
    for scope in ("local", "others", "global"):
        await runtime.service.run(
            sessions.end_statement(eve, claims_of(session)["session_id"], scope)
        )
    assert await refresh(runtime, session, NOW_S + 1)


async def test_the_log_tells_which_session_was_revoked(installation: Installation) -> None:
    ((identity, key),) = rows(
        installation,
        "select c.relreplident, pg_get_indexdef(i.indexrelid) from pg_class c"
        " join pg_index i on i.indrelid = c.oid and i.indisprimary"
        " where c.oid = 'auth.sessions'::regclass",
    )
    assert identity in ("d", b"d")
    assert key.endswith("(id)")


async def test_the_developers_hook_adds_claims_but_cannot_say_whose_they_are(
    runtime: AppRuntime, installation: Installation
) -> None:
    installation.as_owner("""
      create function public.claims(event jsonb) returns jsonb language sql as $$
        select jsonb_build_object('claims', event -> 'claims' || jsonb_build_object(
          'plan', 'pro', 'sub', gen_random_uuid(), 'session_id', gen_random_uuid(), 'exp', 1,
          'method', event -> 'authentication_method'))
      $$
    """)
    await configure(runtime, hooks={"custom_access_token": "public.claims"})
    user_id = await new_user(runtime)
    session = await sign_in(runtime, user_id)
    claims = claims_of(session)
    assert (claims["plan"], claims["method"]) == ("pro", "password")
    assert (claims["sub"], claims["exp"]) == (user_id, session["expires_at"])
    refreshed = claims_of(await refresh(runtime, session, NOW_S + 1))
    assert refreshed["method"] == "token_refresh"
    assert refreshed["session_id"] == claims["session_id"]


@pytest.mark.parametrize("role", ["'service_role'", "'postgres'", "'[]'::jsonb", "null"])
async def test_a_hook_gives_nobody_a_role(
    runtime: AppRuntime, installation: Installation, role: str
) -> None:
    installation.as_owner(f"""
      create function public.claims(event jsonb) returns jsonb language sql as $$
        select jsonb_build_object('claims', event -> 'claims' || jsonb_build_object('role', {role}))
      $$
    """)
    await configure(runtime, hooks={"custom_access_token": "public.claims"})
    with pytest.raises(HookError):
        await sign_in(runtime, await new_user(runtime))
