"""One more way to sign in to an account, or one less; and who would like to have it."""

import base64
import re
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from butterbase.api.auth.mfa.totp import code_of, step_at
from tests.api.auth.oauth.conftest import (
    ANA,
    BEN,
    PKCE,
    SITE,
    Browser,
    World,
    follow,
    identity_id,
    providers_of,
)


async def confirm(browser: Browser, began: str, page: httpx.Response) -> httpx.Response:
    """Press the button of the page."""
    found = re.search(r'name="confirmation" value="([^"]+)"', page.text)
    assert found is not None
    parts = urlsplit(began)
    return await browser.client.post(f"{parts.path}?{parts.query}", data={"confirmation": found[1]})


async def test_a_user_links_an_identity(world: World) -> None:
    ben = await world.sign_up(BEN)
    began = await world.begin_link(ben["access_token"], prompt="consent", scopes="files", **PKCE)
    landing = await follow(world.browser(), began)
    (asked,) = world.issuer.asked
    assert (asked["prompt"], asked["scope"]) == ("consent", "openid email profile files")
    status, session = await world.exchange(landing.query["code"])
    assert status == 200, session
    assert session["provider_token"] == "access-code-1"
    user = session["user"]
    assert (user["id"], user["email"]) == (ben["user"]["id"], BEN)
    assert providers_of(user) == user["app_metadata"]["providers"] == ["email", "acme"]
    assert (await world.signed_in())["user"]["id"] == user["id"]
    assert (await world.sign_in_by_password(BEN))[0] == 200


async def test_without_a_challenge_a_person_looks_at_the_account(world: World) -> None:
    ben = await world.sign_up(BEN)
    browser, began = world.browser(), await world.begin_link(ben["access_token"])
    page = await browser.visit(began)
    assert page.status_code == 200
    assert BEN in page.text
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    answer = await confirm(browser, began, page)
    assert answer.status_code == 303
    landing = await browser.land(await browser.consent(answer.headers["Location"]))
    status, me = await world.get("user", landing.fragment["access_token"])
    assert (status, me["id"]) == (200, ben["user"]["id"])
    assert providers_of(me) == ["email", "acme"]


async def test_what_one_browser_was_shown_does_not_confirm_in_another(world: World) -> None:
    """Mallory's own page, sent from ana's browser, would link ana's account to mallory's."""
    mallory = await world.sign_up(BEN)
    began = await world.begin_link(mallory["access_token"])
    page = await world.browser().visit(began)
    victim = world.browser()
    assert (await confirm(victim, began, page)).status_code == 400
    await victim.start()
    assert (await confirm(victim, began, page)).status_code == 400
    parts = urlsplit(began)
    bare = await victim.client.post(f"{parts.path}?{parts.query}", data={})
    assert (bare.status_code, bare.json()["error_code"]) == (400, "bad_oauth_state")
    assert world.issuer.asked == []


async def test_who_is_lured_into_anothers_link_gives_nothing_away(world: World) -> None:
    """The code is where the app is open in the victim's browser; the verifier is not."""
    mallory = await world.sign_up(BEN)
    began = await world.begin_link(mallory["access_token"], **PKCE)
    landing = await follow(world.browser(), began)
    assert list(landing.query) == ["code"]
    assert world.rows("select provider from auth.identities") == [("email",)]
    status, refused = await world.exchange(landing.query["code"], "another" + "v" * 43)
    assert (status, refused["error_code"]) == (400, "bad_code_verifier")
    assert world.rows("select provider from auth.identities") == [("email",)]


async def test_a_link_is_begun_once(world: World) -> None:
    ben = await world.sign_up(BEN)
    began = await world.begin_link(ben["access_token"], **PKCE)
    assert (await world.browser().visit(began)).status_code == 302
    again = await world.browser().visit(began)
    assert (again.status_code, again.json()["error_code"]) == (400, "bad_oauth_state")


async def test_a_state_does_not_begin_and_a_start_does_not_end(world: World) -> None:
    ben = await world.sign_up(BEN)
    browser, began = world.browser(), await world.begin_link(ben["access_token"], **PKCE)
    (start,) = parse_qs(urlsplit(began).query)["flow"]
    (state,) = parse_qs(urlsplit(await browser.start()).query)["state"]
    landing = await browser.land(f"/auth/v1/callback/acme?state={start}&code=x")
    assert landing.error_code == "bad_oauth_state"
    answer = await browser.visit(f"/auth/v1/authorize?flow={state}")
    assert answer.json()["error_code"] == "bad_oauth_state"


async def test_signing_out_ends_a_link_that_is_under_way(world: World) -> None:
    """A thief with a session has lost it: nothing begun with it brings it back."""
    ben = await world.sign_up(BEN)
    token, browser = ben["access_token"], world.browser()
    fresh = await world.begin_link(token, **PKCE)
    back = await browser.consent(
        (await browser.visit(await world.begin_link(token, **PKCE))).headers["Location"]
    )
    code = (await follow(browser, await world.begin_link(token, **PKCE))).query["code"]
    headers = world.api.anon | {"Authorization": f"Bearer {token}"}
    answer = await world.api.client.post("/auth/v1/logout?scope=global", headers=headers)
    assert answer.status_code == 204
    assert (await browser.visit(fresh)).status_code == 400
    assert (await browser.land(back)).error_code == "bad_oauth_state"
    status, refused = await world.exchange(code)
    assert (status, refused["error_code"]) == (404, "flow_state_not_found")
    assert world.rows("select provider from auth.identities") == [("email",)]


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_anothers_identity_is_not_linked(world: World, asked: dict[str, str]) -> None:
    ana = await world.signed_in()
    ben = await world.sign_up(BEN)
    browser, began = world.browser(), await world.begin_link(ben["access_token"], **asked)
    if asked:
        landing = await follow(browser, began)
    else:
        answer = await confirm(browser, began, await browser.visit(began))
        landing = await browser.land(await browser.consent(answer.headers["Location"]))
    assert landing.error_code == "identity_already_exists"
    assert (await world.signed_in())["user"]["id"] == ana["user"]["id"]
    assert world.rows(
        "select count(*) from auth.sessions where user_id = %s", ben["user"]["id"]
    ) == [(1,)]


async def test_one_of_their_own_is_not_linked_again(world: World) -> None:
    ana = await world.signed_in()
    landing = await follow(world.browser(), await world.begin_link(ana["access_token"], **PKCE))
    assert landing.query["error_description"] == "Identity is already linked"


async def test_an_identity_that_was_taken_meanwhile_is_not_linked(world: World) -> None:
    ben = await world.sign_up(BEN)
    landing = await follow(world.browser(), await world.begin_link(ben["access_token"], **PKCE))
    await world.signed_in()
    status, refused = await world.exchange(landing.query["code"])
    assert (status, refused["error_code"]) == (422, "identity_already_exists")


async def test_an_address_that_is_not_verified_links_but_confirms_nothing(world: World) -> None:
    ben = await world.sign_up(BEN)
    world.issuer.user |= {"email": "cid@example.com", "email_verified": False}
    landing = await follow(world.browser(), await world.begin_link(ben["access_token"], **PKCE))
    _, session = await world.exchange(landing.query["code"])
    assert session["user"]["email"] == BEN
    assert providers_of(session["user"]) == ["email", "acme"]


async def anonymous(world: World) -> dict[str, Any]:
    await world.configure(is_anonymous_enabled=True)
    status, session = await world.post("signup", {})
    assert status == 200, session
    return dict(session)


async def test_an_anonymous_user_becomes_one_with_an_address(world: World) -> None:
    nobody = await anonymous(world)
    landing = await follow(world.browser(), await world.begin_link(nobody["access_token"], **PKCE))
    _, session = await world.exchange(landing.query["code"])
    user = session["user"]
    assert (user["id"], user["email"]) == (nobody["user"]["id"], ANA)
    assert user["is_anonymous"] is False
    assert "email_confirmed_at" in user


async def test_but_not_with_anothers_address(world: World) -> None:
    await world.new_user()
    nobody = await anonymous(world)
    landing = await follow(world.browser(), await world.begin_link(nobody["access_token"], **PKCE))
    status, refused = await world.exchange(landing.query["code"])
    assert (status, refused["error_code"]) == (422, "email_exists")
    assert world.rows("select provider from auth.identities") == [("email",)]


async def test_linking_is_for_who_is_signed_in(world: World) -> None:
    path = "/auth/v1/user/identities/authorize?provider=acme"
    for headers in (world.api.anon, world.api.service):
        answer = await world.api.client.get(path, headers=headers)
        assert answer.status_code == 401
    ben = await world.sign_up(BEN)
    await world.configure(is_manual_linking_enabled=False)
    status, refused = await world.get(
        "user/identities/authorize?provider=acme", ben["access_token"]
    )
    assert (status, refused["error_code"]) == (404, "manual_linking_disabled")
    status, refused = await world.delete_identity(ben["user"]["id"], ben["access_token"])
    assert (status, refused["error_code"]) == (404, "manual_linking_disabled")


async def test_without_skip_http_redirect_it_leads_there(world: World) -> None:
    ben = await world.sign_up(BEN)
    headers = world.api.anon | {"Authorization": f"Bearer {ben['access_token']}"}
    for skip in ("false", ""):
        answer = await world.api.client.get(
            "/auth/v1/user/identities/authorize",
            params={"provider": "acme", "skip_http_redirect": skip, **PKCE},
            headers=headers,
        )
        assert answer.status_code == 302
        assert "access_token" not in answer.headers["Location"]
        landing = await follow(world.browser(), answer.headers["Location"])
        assert landing.place == SITE


async def enrolled(world: World, session: dict[str, Any]) -> dict[str, Any]:
    """The session, with a second factor proved."""
    token = session["access_token"]
    _, factor = await world.post(
        "factors", {"factor_type": "totp", "friendly_name": "phone"}, token
    )
    _, challenge = await world.post(f"factors/{factor['id']}/challenge", {}, token)
    secret = base64.b32decode(factor["totp"]["secret"])
    status, strong = await world.post(
        f"factors/{factor['id']}/verify",
        {"challenge_id": challenge["id"], "code": code_of(secret, step_at(time.time()))},
        token,
    )
    assert status == 200, strong
    return dict(strong)


async def test_who_has_not_the_second_factor_neither_links_nor_unlinks(world: World) -> None:
    """A thief has the password of an account with TOTP, and an account of his own at acme."""
    await world.new_user(BEN)
    _, own = await world.sign_in_by_password(BEN)
    kept = await follow(world.browser(), await world.begin_link(own["access_token"], **PKCE))
    strong = await enrolled(world, own)
    _, thief = await world.sign_in_by_password(BEN)
    token = thief["access_token"]
    refusals = [
        await world.id_token(world.issuer.id_token(), link_identity=True, bearer=token),
        await world.delete_identity(identity_id(thief, "email"), token),
        await world.get("user/identities/authorize?provider=acme", token),
    ]
    for status, refused in refusals:
        assert (status, refused["error_code"]) == (401, "insufficient_aal")
    assert world.rows("select provider from auth.identities") == [("email",)]
    # What was begun in the session that has proved it since goes on.
    token = strong["access_token"]
    assert (await world.exchange(kept.query["code"]))[0] == 200
    status, refused = await world.delete_identity(identity_id(strong, "email"), token)
    assert (status, refused["error_code"]) == (422, "email_conflict_identity_not_deletable")


async def test_a_link_begun_before_the_second_factor_needs_it(world: World) -> None:
    """A thief's own session begins; the owner enrols; the thief's flow comes back."""
    await world.new_user(BEN)
    _, thief = await world.sign_in_by_password(BEN)
    code = (
        await follow(world.browser(), await world.begin_link(thief["access_token"], **PKCE))
    ).query["code"]
    browser = world.browser()
    began = await world.begin_link(thief["access_token"])
    answer = await confirm(browser, began, await browser.visit(began))
    back = await browser.consent(answer.headers["Location"])
    _, owner = await world.sign_in_by_password(BEN)
    await enrolled(world, owner)
    status, refused = await world.exchange(code)
    assert status in (401, 404), refused
    assert (await browser.land(back)).error_code in ("insufficient_aal", "bad_oauth_state")
    assert world.rows("select provider from auth.identities") == [("email",)]


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_an_anonymous_user_does_not_pass_the_hook_by_linking(
    world: World, asked: dict[str, str]
) -> None:
    world.api.installation.as_owner("""
      create function public.decide(event jsonb) returns jsonb language sql as $$
        select case when event -> 'user' ->> 'email' = '' then '{}' else
          '{"error": {"http_code": 403, "message": "not from here"}}'::jsonb end
      $$
    """)
    hooks = {"before_user_created": "public.decide"}
    await world.configure(is_anonymous_enabled=True, hooks=hooks)
    _, session = await world.post("signup", {})
    browser, began = world.browser(), await world.begin_link(session["access_token"], **asked)
    answer = await browser.visit(began)
    if not asked:
        answer = await confirm(browser, began, answer)
    landing = await browser.land(await browser.consent(answer.headers["Location"]))
    assert landing.query["error_description"] == "not from here"
    assert world.rows("select provider from auth.identities") == []
