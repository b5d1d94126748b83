"""Signing in with a provider, as auth-js drives it."""

import asyncio
import base64
import hashlib
from collections import Counter

import jwt
import pytest

from butterbase.api.auth.auth_codes import s256
from tests.api.auth.oauth.conftest import ANA, PKCE, SITE, VERIFIER, World


async def test_a_code_is_exchanged_for_a_session(world: World) -> None:
    landing = await world.browser().sign_in(**PKCE)
    assert (landing.place, list(landing.query)) == (SITE, ["code"])
    assert landing.fragment == {}
    status, session = await world.exchange(landing.query["code"])
    assert status == 200, session
    assert session["provider_token"] == "access-code-1"
    assert session["provider_refresh_token"] == "refresh-code-1"
    user = session["user"]
    assert (user["email"], user["app_metadata"]["providers"]) == (ANA, ["acme"])
    assert user["user_metadata"]["name"] == "Ana"
    (identity,) = user["identities"]
    assert (identity["provider"], identity["id"]) == ("acme", "user-1")
    assert identity["identity_data"]["email_verified"] is True
    status, me = await world.get("user", session["access_token"])
    assert (status, me["id"]) == (200, user["id"])


async def test_without_a_challenge_the_session_comes_in_the_fragment(world: World) -> None:
    landing = await world.browser().sign_in()
    assert (landing.place, landing.query) == (SITE, {})
    session = landing.fragment
    assert session["token_type"] == "bearer"
    assert int(session["expires_at"]) > int(session["expires_in"]) > 0
    assert session["provider_token"] == "access-code-1"
    assert session["provider_refresh_token"] == "refresh-code-1"
    status, me = await world.get("user", session["access_token"])
    assert (status, me["email"]) == (200, ANA)
    status, _ = await world.post(
        "token?grant_type=refresh_token", {"refresh_token": session["refresh_token"]}
    )
    assert status == 200


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_the_token_says_that_a_provider_vouched(world: World, asked: dict[str, str]) -> None:
    landing = await world.browser().sign_in(**asked)
    token = landing.fragment.get("access_token")
    if token is None:
        token = (await world.exchange(landing.query["code"]))[1]["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    ((method, provider),) = [(entry["method"], entry["provider"]) for entry in claims["amr"]]
    assert (method, provider, claims["aal"]) == ("oauth", "acme", "aal1")


async def test_who_comes_again_is_the_same_user(world: World) -> None:
    first = await world.signed_in()
    world.issuer.user["name"] = "Ana B."
    again = await world.signed_in()
    assert again["user"]["id"] == first["user"]["id"]
    assert again["user"]["user_metadata"]["name"] == "Ana B."
    assert world.rows("select count(*) from auth.users") == [(1,)]


async def test_an_account_is_known_by_its_id_and_not_its_address(world: World) -> None:
    first = await world.signed_in()
    world.issuer.user["email"] = "other@example.com"
    again = await world.signed_in()
    assert again["user"]["id"] == first["user"]["id"]
    assert again["user"]["email"] == ANA


async def test_the_provider_is_asked_with_a_challenge_and_a_nonce(world: World) -> None:
    browser = world.browser()
    await browser.sign_in(
        scopes="files calendar", prompt="consent", client_id="another", nonce="mine", **PKCE
    )
    (asked,) = world.issuer.asked
    assert asked["scope"] == "openid email profile files calendar"
    assert asked["prompt"] == "consent"
    assert asked["client_id"] == "client"
    assert asked["redirect_uri"].endswith("/auth/v1/callback/acme")
    assert asked["nonce"] not in {"", "mine"}
    assert asked["code_challenge_method"] == "S256"
    assert asked["code_challenge"] != PKCE["code_challenge"]
    (redeemed,) = world.issuer.redeemed
    assert s256(redeemed["code_verifier"]) == asked["code_challenge"]


async def test_a_wrong_verifier_spends_the_code(world: World) -> None:
    landing = await world.browser().sign_in(**PKCE)
    status, refused = await world.exchange(landing.query["code"], "w" * 43)
    assert (status, refused["error_code"]) == (400, "bad_code_verifier")
    status, refused = await world.exchange(landing.query["code"])
    assert (status, refused["error_code"]) == (404, "flow_state_not_found")
    assert world.rows("select count(*) from auth.sessions") == [(0,)]


async def test_the_challenge_is_not_its_verifier(world: World) -> None:
    """An address with the challenge was seen by others."""
    landing = await world.browser().sign_in(**PKCE)
    status, refused = await world.exchange(landing.query["code"], PKCE["code_challenge"])
    assert (status, refused["error_code"]) == (400, "bad_code_verifier")


async def test_a_plain_challenge_is_compared_as_it_is(world: World) -> None:
    plain = {"code_challenge": VERIFIER, "code_challenge_method": "plain"}
    landing = await world.browser().sign_in(**plain)
    assert (await world.exchange(landing.query["code"]))[0] == 200


async def test_a_code_is_good_once(world: World) -> None:
    code = (await world.browser().sign_in(**PKCE)).query["code"]
    answers = await asyncio.gather(*(world.exchange(code) for _ in range(5)))
    assert Counter(status for status, _ in answers) == {200: 1, 404: 4}
    assert {body.get("error_code") for status, body in answers if status != 200} == {
        "flow_state_not_found"
    }
    assert world.rows("select count(*) from auth.sessions") == [(1,)]


async def test_a_code_expires(world: World) -> None:
    code = (await world.browser().sign_in(**PKCE)).query["code"]
    (life,) = world.rows(
        "select extract(epoch from expires_at - created_at)::int from auth.flow_state"
    )
    assert life == (300,)
    world.rows("update auth.flow_state set expires_at = now() - interval '1 second'")
    status, refused = await world.exchange(code)
    assert (status, refused["error_code"]) == (422, "flow_state_expired")


async def test_two_sign_ins_at_once_make_one_user(world: World) -> None:
    browsers = [world.browser() for _ in range(4)]
    back = [await browser.consent(await browser.start()) for browser in browsers]
    landings = await asyncio.gather(
        *(browser.land(url) for browser, url in zip(browsers, back, strict=True))
    )
    assert all("access_token" in landing.fragment for landing in landings)
    assert world.rows("select count(*) from auth.users") == [(1,)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"auth_code": "x"},
        {"code_verifier": VERIFIER},
        {"auth_code": "x", "code_verifier": "v" * 129},
        {"auth_code": "x", "code_verifier": "\0" * 43},
    ],
)
async def test_a_code_needs_its_verifier(world: World, body: dict[str, str]) -> None:
    status, refused = await world.post("token?grant_type=pkce", body)
    assert (status, refused["error_code"]) == (400, "validation_failed")


@pytest.mark.parametrize(
    "asked",
    [
        {"code_challenge": PKCE["code_challenge"]},
        {"code_challenge_method": "s256"},
        {"code_challenge": "short", "code_challenge_method": "s256"},
        {"code_challenge": "v" * 42 + "!", "code_challenge_method": "s256"},
        {"code_challenge": PKCE["code_challenge"], "code_challenge_method": "md5"},
        {"scopes": "a" * 300},
        {"scopes": "bad\x01scope"},
        {"x": "y" * 600},
        {f"x{at}": "y" for at in range(30)},
        {f"x{at}": "y" for at in range(120)},
    ],
)
async def test_what_cannot_be_asked_for_is_refused(world: World, asked: dict[str, str]) -> None:
    answer = await world.browser().client.get(
        "/auth/v1/authorize", params={"provider": "acme", **asked}
    )
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
    assert world.rows("select count(*) from auth.flow_state") == [(0,)]


async def test_what_opens_a_session_is_not_at_rest(world: World) -> None:
    """Who has a copy of the database can neither finish a flow nor use the provider's tokens."""
    browser = world.browser()
    url = await browser.start(**PKCE)
    back = await browser.consent(url)
    asked = world.issuer.asked[0]
    cookie = browser.client.cookies["butterbase-oauth"]
    under_way = str(world.rows("select f::text from auth.flow_state f"))
    code = (await browser.land(back)).query["code"]
    waiting = str(world.rows("select f::text from auth.flow_state f"))
    secrets = [asked["state"], asked["nonce"], cookie, world.issuer.redeemed[0]["code_verifier"]]
    for secret in [*secrets, code, "access-code-1", "refresh-code-1", VERIFIER]:
        for form in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            assert form not in under_way + waiting
    assert hashlib.sha256(code.encode()).hexdigest() in waiting
