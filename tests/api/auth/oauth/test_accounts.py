"""Whose account it is that a provider vouches for, as somebody would like to have it who lies."""

import asyncio

import pytest

from tests.api.auth.oauth.conftest import ANA, PKCE, World
from tests.api.auth.oauth.issuer import issuing


async def test_a_verified_address_links_to_the_account_that_has_proved_it(world: World) -> None:
    user_id = await world.new_user()
    session = await world.signed_in()
    assert session["user"]["id"] == user_id
    assert session["user"]["app_metadata"]["providers"] == ["email", "acme"]
    assert (await world.sign_in_by_password())[0] == 200


async def test_addresses_are_compared_without_case(world: World) -> None:
    user_id = await world.new_user()
    world.issuer.user["email"] = "ANA@Example.com"
    assert (await world.signed_in())["user"]["id"] == user_id


@pytest.mark.parametrize("verified", [False, "false", None, "yes", 0])
async def test_an_address_that_is_not_verified_links_nothing(
    world: World, verified: object
) -> None:
    """A provider where anybody may write any address must not open ana's account."""
    await world.new_user()
    world.issuer.user["email_verified"] = verified
    for asked in ({}, PKCE):
        landing = await world.browser().sign_in(**asked)
        assert landing.error_code == "provider_email_needs_verification"
        assert landing.query["error"] == "access_denied"
    assert world.rows("select provider from auth.identities") == [("email",)]
    assert world.rows("select count(*) from auth.sessions") == [(0,)]


async def test_nor_does_it_where_addresses_are_optional(world: World) -> None:
    user_id = await world.new_user()
    await world.provide(email_optional=True)
    world.issuer.user["email_verified"] = False
    session = await world.signed_in()
    assert session["user"]["id"] != user_id
    assert session["user"]["email"] == ""
    again = await world.signed_in()
    assert again["user"]["id"] == session["user"]["id"]


async def test_an_address_that_is_verified_later_opens_no_other_account(world: World) -> None:
    """Once an account of the provider is a user's, its address decides nothing."""
    await world.provide(email_optional=True)
    world.issuer.user["email_verified"] = False
    own = (await world.signed_in())["user"]["id"]
    ana = await world.new_user()
    world.issuer.user["email_verified"] = True
    assert (await world.signed_in())["user"]["id"] == own != ana


async def test_without_an_address_nobody_is_made(world: World) -> None:
    del world.issuer.user["email"]
    landing = await world.browser().sign_in()
    assert landing.error_code == "email_address_not_provided"
    assert world.rows("select count(*) from auth.users") == [(0,)]


async def test_equal_ids_of_two_providers_are_two_accounts(world: World) -> None:
    first = await world.signed_in()
    async with issuing(email="other@example.com", email_verified=True) as other:
        await world.provide("other", other)
        landing = await world.browser().sign_in("other", **PKCE)
        _, second = await world.exchange(landing.query["code"])
    assert first["user"]["identities"][0]["id"] == second["user"]["identities"][0]["id"]
    assert first["user"]["id"] != second["user"]["id"]


async def test_who_made_the_account_before_its_owner_came_is_out(world: World) -> None:
    """Pre-hijacking: an account of ana's address waits, with a password and a session."""
    planted = await world.sign_up()
    user_id = planted["user"]["id"]
    world.rows(
        "update auth.users set phone = '15550100', email_change = 'mallory@example.com',"
        ' raw_user_meta_data = \'{"name": "Mallory"}\' where id = %s',
        user_id,
    )
    world.rows(
        "insert into auth.one_time_tokens (user_id, kind, relates_to, requester, expires_at)"
        " values (%s, 'recovery', 'mallory@example.com', '', now() + interval '1 hour')",
        user_id,
    )
    world.rows(
        "insert into auth.mfa_factors (user_id, factor_type, status)"
        " values (%s, 'totp', 'verified')",
        user_id,
    )
    world.issuer.user.pop("name")
    session = await world.signed_in()
    assert session["user"]["id"] == user_id
    assert session["user"]["phone"] == ""
    assert "new_email" not in session["user"]
    assert "factors" not in session["user"]
    assert "name" not in session["user"]["user_metadata"]
    assert [one["provider"] for one in session["user"]["identities"]] == ["acme"]
    assert (await world.sign_in_by_password())[1]["error_code"] == "invalid_credentials"
    assert (await world.get("user", planted["access_token"]))[0] == 403
    status, _ = await world.post(
        "token?grant_type=refresh_token", {"refresh_token": planted["refresh_token"]}
    )
    assert status == 400
    assert world.rows("select count(*) from auth.one_time_tokens") == [(0,)]
    assert world.rows(
        "select count(*) from auth.audit_log_entries"
        " where payload -> 'traits' ->> 'reason' = 'unverified_account_claimed'"
    ) == [(1,)]


async def test_nor_does_it_help_to_have_linked_another_account(world: World) -> None:
    planted = await world.sign_up()
    async with issuing(email="mallory@example.com", email_verified=True) as mallory:
        await world.provide("mallory", mallory)
        browser = world.browser()
        began = await world.begin_link(planted["access_token"], provider="mallory", **PKCE)
        back = await browser.consent((await browser.visit(began)).headers["Location"])
        landing = await browser.land(back)
        assert (await world.exchange(landing.query["code"]))[0] == 200
        assert (await world.signed_in())["user"]["id"] == planted["user"]["id"]
        landing = await world.browser().sign_in("mallory", **PKCE)
        _, session = await world.exchange(landing.query["code"])
        assert session["user"]["id"] != planted["user"]["id"]


async def test_nor_to_have_a_link_under_way(world: World) -> None:
    planted = await world.sign_up()
    async with issuing(email="mallory@example.com", email_verified=True) as mallory:
        await world.provide("mallory", mallory)
        browser = world.browser()
        began = await world.begin_link(planted["access_token"], provider="mallory", **PKCE)
        late = await world.begin_link(planted["access_token"], provider="mallory", **PKCE)
        back = await browser.consent((await browser.visit(began)).headers["Location"])
        await world.signed_in()
        assert (await browser.land(back)).error_code == "bad_oauth_state"
        assert (await browser.visit(late)).status_code == 400
    assert world.rows("select provider from auth.identities") == [("acme",)]


async def test_a_user_that_an_invitation_waits_for_keeps_what_was_written_of_them(
    world: World,
) -> None:
    answer = await world.api.client.post(
        "/auth/v1/invite", json={"email": ANA, "data": {"team": "red"}}, headers=world.api.service
    )
    assert answer.status_code == 200, answer.text
    session = await world.signed_in()
    assert session["user"]["id"] == answer.json()["id"]
    assert session["user"]["user_metadata"]["team"] == "red"


async def ban(world: World, user_id: str) -> None:
    answer = await world.api.client.put(
        f"/auth/v1/admin/users/{user_id}",
        json={"ban_duration": "1h"},
        headers=world.api.service,
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_who_is_banned_stays_out(world: World, asked: dict[str, str]) -> None:
    user_id = await world.new_user()
    await ban(world, user_id)
    landing = await world.browser().sign_in(**asked)
    assert (landing.error_code, landing.query["error"]) == ("user_banned", "access_denied")
    assert world.rows("select provider from auth.identities") == [("email",)]


async def test_who_is_banned_cannot_use_a_code_from_before(world: World) -> None:
    await world.signed_in()
    code = (await world.browser().sign_in(**PKCE)).query["code"]
    ((user_id,),) = world.rows("select id::text from auth.users")
    await ban(world, user_id)
    status, refused = await world.exchange(code)
    assert (status, refused["error_code"]) == (400, "user_banned")


async def test_who_was_deleted_is_somebody_new(world: World) -> None:
    first = await world.signed_in()
    answer = await world.api.client.request(
        "DELETE",
        f"/auth/v1/admin/users/{first['user']['id']}",
        json={"should_soft_delete": True},
        headers=world.api.service,
    )
    assert answer.status_code == 200, answer.text
    assert (await world.signed_in())["user"]["id"] != first["user"]["id"]


async def test_without_sign_ups_only_the_known_come_in(world: World) -> None:
    await world.configure(is_signup_enabled=False)
    landing = await world.browser().sign_in()
    assert (landing.error_code, landing.query["error"]) == ("signup_disabled", "access_denied")
    await world.configure(is_signup_enabled=True)
    await world.signed_in()
    await world.configure(is_signup_enabled=False)
    await world.signed_in()


HOOK = """
create table public.asked (payload jsonb);
create function public.judge(event jsonb) returns jsonb language plpgsql security definer as $$
begin
  insert into public.asked values (event);
  if event -> 'user' ->> 'email' like '%@example.com' then
    return '{"error": {"http_code": 403, "message": "not from there"}}';
  end if;
  return '{}';
end
$$;
"""


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_a_hook_refuses_who_would_be_made(world: World, asked: dict[str, str]) -> None:
    world.rows(HOOK)
    await world.configure(hooks={"before_user_created": "public.judge"})
    landing = await world.browser().sign_in(**asked)
    assert landing.query == {
        "error": "access_denied",
        "error_code": "hook_refused",
        "error_description": "not from there",
    }
    assert world.rows("select count(*) from auth.users") == [(0,)]
    ((payload,),) = world.rows("select payload from public.asked")
    assert payload["user"]["app_metadata"]["provider"] == "acme"
    status, refused = await world.id_token(world.issuer.id_token())
    assert (status, refused["msg"]) == (403, "not from there")


async def test_a_hook_is_not_asked_of_who_is_there(world: World) -> None:
    await world.new_user()
    world.rows(HOOK)
    await world.configure(hooks={"before_user_created": "public.judge"})
    await world.signed_in()
    await world.signed_in()
    assert world.rows("select count(*) from public.asked") == [(0,)]


async def test_what_a_trigger_says_reaches_the_app(world: World) -> None:
    world.rows(
        "create function public.refuse() returns trigger language plpgsql as $$"
        " begin raise exception 'no room left'; end $$;"
        " create trigger refuse before insert on auth.users"
        " for each row execute function public.refuse()"
    )
    landing = await world.browser().sign_in()
    assert landing.query == {
        "error": "server_error",
        "error_code": "unexpected_failure",
        "error_description": "no room left",
    }


async def test_a_password_and_a_provider_at_once_make_one_user(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start())
    body = {"email": ANA, "password": "correct horse"}
    landing, _ = await asyncio.gather(browser.land(back), world.post("signup", body))
    assert "access_token" in landing.fragment
    assert world.rows("select count(*) from auth.users") == [(1,)]


async def test_what_is_too_much_for_a_token_is_not_kept_of_a_user(world: World) -> None:
    user_id = await world.new_user()
    world.rows(
        "update auth.users set raw_user_meta_data = jsonb_build_object('big', repeat('x', 65000))"
        " where id = %s",
        user_id,
    )
    session = await world.signed_in()
    assert list(session["user"]["user_metadata"]) == ["big"]
