"""The providers that have ways of their own, each against a server that speaks as it does."""

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from butterbase.api.auth.oauth import providers
from butterbase.api.settings import ApiSettings
from tests.api.auth.oauth.conftest import ANA, PKCE, SITE, Browser, Landing, World
from tests.api.auth.oauth.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from tests.api.auth.oauth.test_profiles import DISCORD, GITHUB, GITLAB
from tests.api.auth.oauth.vendor import Vendor, selling
from tests.api.conftest import running
from tests.installation import Installation

TOKENS = {"access_token": "vendor access", "refresh_token": "vendor refresh", "expires_in": 7200}


async def sell(world: World, name: str, vendor: Vendor, **settings: Any) -> None:
    await world.configure(
        providers={
            name: {
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "options": {"url": vendor.url},
                **settings,
            }
        }
    )


async def sign_in(world: World, name: str, **told: str) -> tuple[Landing, dict[str, str]]:
    """Where the browser landed, and what the provider was asked."""
    browser = world.browser()
    url = await browser.start(name, **PKCE)
    asked = {key: value for key, (value,) in parse_qs(urlsplit(url).query).items()}
    back = urlencode({"state": asked["state"], "code": "the code", **told})
    landing = await browser.land(f"{asked['redirect_uri']}?{back}")
    return landing, {**asked, "at": url.partition("?")[0]}


async def session_of(world: World, landing: Landing) -> dict[str, Any]:
    status, session = await world.exchange(landing.query["code"])
    assert status == 200, session
    assert session["provider_token"] == "vendor access"
    return dict(session)


async def test_github_is_asked_for_its_addresses(world: World) -> None:
    answers = {
        "/login/oauth/access_token": {**TOKENS, "scope": "user:email", "token_type": "bearer"},
        "/api/v3/user": GITHUB,
        "/api/v3/user/emails": [{"email": ANA, "primary": True, "verified": True}],
    }
    async with selling(answers) as github:
        await sell(world, "github", github)
        landing, asked = await sign_in(world, "github")
        user = (await session_of(world, landing))["user"]
        assert (user["email"], user["user_metadata"]["user_name"]) == (ANA, "ana-gh")
        assert asked["at"] == f"{github.url}/login/oauth/authorize"
        assert (asked["scope"], asked["code_challenge_method"]) == ("user:email", "S256")
        assert "nonce" not in asked
        form = github.forms["/login/oauth/access_token"]
        assert form["code"] == "the code"
        assert form["client_secret"] == CLIENT_SECRET
        assert form["redirect_uri"] == asked["redirect_uri"]
        for path in ("/api/v3/user", "/api/v3/user/emails"):
            assert github.headers[path]["authorization"] == "Bearer vendor access"
            assert github.headers[path]["user-agent"] == "butterbase"

        await world.new_user("public@example.com")
        github.answers["/api/v3/user"] = {**GITHUB, "id": 7}
        github.answers["/api/v3/user/emails"] = [
            {"email": "public@example.com", "primary": True, "verified": False}
        ]
        landing, _ = await sign_in(world, "github")
        assert landing.error_code == "provider_email_needs_verification"


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        ({"error": "bad_verification_code"}, "server_error", "bad_oauth_callback"),
        ((400, {"error": "invalid_grant"}), "server_error", "bad_oauth_callback"),
        ((400, {"error": {"message": "…", "code": 100}}), "server_error", "bad_oauth_callback"),
        ((401, b""), "temporarily_unavailable", "unexpected_failure"),
        ((500, {"access_token": "x"}), "temporarily_unavailable", "unexpected_failure"),
        ((302, {"access_token": "x"}), "temporarily_unavailable", "unexpected_failure"),
        (b"access_token=x", "temporarily_unavailable", "unexpected_failure"),
        ([], "temporarily_unavailable", "unexpected_failure"),
        ({}, "temporarily_unavailable", "unexpected_failure"),
        ({"access_token": 1}, "temporarily_unavailable", "unexpected_failure"),
        ({"access_token": "x" * 20_000}, "temporarily_unavailable", "unexpected_failure"),
        (b'"' + b"x" * 600_000 + b'"', "temporarily_unavailable", "unexpected_failure"),
    ],
)
async def test_a_token_endpoint_that_does_not_answer_signs_nobody_in(
    world: World, answer: Any, error: str, code: str
) -> None:
    async with selling({"/login/oauth/access_token": answer}) as github:
        await sell(world, "github", github)
        landing, _ = await sign_in(world, "github")
    assert (landing.place, landing.query["error"], landing.error_code) == (SITE, error, code)
    assert "the code" not in landing.url


async def test_gitlab_and_discord_tell_their_users(world: World) -> None:
    answers = {
        "/oauth/token": TOKENS,
        "/api/v4/user": GITLAB,
        "/api/oauth2/token": TOKENS,
        "/api/users/@me": {**DISCORD, "email": "ben@example.com"},
    }
    async with selling(answers) as vendor:
        for name, email in [("gitlab", ANA), ("discord", "ben@example.com")]:
            await sell(world, name, vendor)
            landing, asked = await sign_in(world, name)
            user = (await session_of(world, landing))["user"]
            assert (user["email"], user["app_metadata"]["provider"]) == (email, name)
            assert asked["redirect_uri"].endswith(f"/callback/{name}")


async def test_x_is_told_the_client_by_basic_authentication(world: World) -> None:
    me = {"data": {"id": "2244994945", "username": "ana", "name": "Ana", "confirmed_email": ANA}}
    async with selling({"/2/oauth2/token": TOKENS, "/2/users/me": me}) as x:
        await sell(world, "x", x)
        landing, asked = await sign_in(world, "x")
        user = (await session_of(world, landing))["user"]
        assert (user["email"], user["app_metadata"]["provider"]) == (ANA, "x")
        assert asked["scope"] == "users.email tweet.read users.read offline.access"
        assert asked["code_challenge_method"] == "S256"
        assert "client_secret" not in x.forms["/2/oauth2/token"]
        scheme, _, pair = x.headers["/2/oauth2/token"]["authorization"].partition(" ")
        assert (scheme, base64.b64decode(pair)) == (
            "Basic",
            b"client:the+client%27s+secret%2F%2B",
        )
        assert "confirmed_email" in x.queries["/2/users/me"]["user.fields"]

        del me["data"]["confirmed_email"]
        me["data"]["id"] = "7"
        landing, _ = await sign_in(world, "x")
        assert landing.error_code == "email_address_not_provided"
        await sell(world, "x", x, email_optional=True)
        landing, _ = await sign_in(world, "x")
        assert (await session_of(world, landing))["user"]["email"] == ""


async def test_facebook_is_shown_that_the_app_asks(world: World) -> None:
    me = {"id": "10158", "email": ANA, "name": "Ana"}
    async with selling({"/oauth/access_token": TOKENS, "/me": me}) as facebook:
        await sell(world, "facebook", facebook)
        landing, asked = await sign_in(world, "facebook")
        assert (await session_of(world, landing))["user"]["email"] == ANA
        assert asked["at"] == f"{facebook.url}/dialog/oauth"
        query = facebook.queries["/me"]
        assert "email" in query["fields"].split(",")
        mac = hmac.new(CLIENT_SECRET.encode(), b"vendor access", hashlib.sha256)
        assert query["appsecret_proof"] == mac.hexdigest()


PRIVATE_KEY = ec.generate_private_key(ec.SECP256R1())
P8 = PRIVATE_KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch, issuer: Issuer) -> Issuer:
    """Apple, at the test's issuer."""
    known = msgspec.structs.replace(providers.KNOWN["apple"], issuer=issuer.url)
    monkeypatch.setitem(dict_of(providers.KNOWN), "apple", known)
    issuer.tells_issuer = False
    issuer.user |= {"email_verified": "true", "is_private_email": "true"}
    return issuer


def dict_of(mapping: Any) -> dict[str, Any]:
    assert isinstance(mapping, dict)
    return mapping


async def set_up_apple(world: World, **more: Any) -> None:
    given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **more}
    await world.configure(providers={"apple": given})


async def begin(browser: Browser, **asked: str) -> dict[str, str]:
    query = parse_qs(urlsplit(await browser.start("apple", **asked)).query)
    return {key: value for key, (value,) in query.items()}


async def answer(browser: Browser, issuer: Issuer, asked: dict[str, str], **more: str) -> Landing:
    """Apple's form, that the browser posts."""
    issuer.issued["apple-code"] = asked
    form = {"state": asked["state"], "code": "apple-code", **more}
    posted = await browser.client.post("/auth/v1/callback", data=form)
    assert posted.status_code == 303, posted.text
    return Landing(posted.headers["Location"])


async def test_apple_answers_by_a_form(world: World, apple: Issuer) -> None:
    await set_up_apple(world)
    browser = world.browser()
    asked = await begin(browser, **PKCE)
    assert (asked["response_mode"], asked["scope"]) == ("form_post", "name email")
    assert asked["redirect_uri"].endswith("/auth/v1/callback")
    user = '{"name": {"firstName": "Ana", "lastName": "L"}, "email": "liar@example.com"}'
    landing = await answer(browser, apple, asked, user=user)
    status, session = await world.exchange(landing.query["code"])
    assert status == 200, session
    assert session["user"]["email"] == ANA
    assert session["user"]["user_metadata"]["full_name"] == "Ana L"
    assert "liar" not in str(session)


@pytest.mark.parametrize("user", ["", "{", "[]", '{"name": 7}', '"' * 500, "[" * 5000])
async def test_what_cannot_be_read_beside_the_code_is_left(
    world: World, apple: Issuer, user: str
) -> None:
    await set_up_apple(world)
    browser = world.browser()
    landing = await answer(browser, apple, await begin(browser), user=user)
    assert "access_token" in landing.fragment


async def test_the_form_is_the_browsers_that_began_as_well(world: World, apple: Issuer) -> None:
    await set_up_apple(world)
    attacker, victim = world.browser(), world.browser()
    asked = await begin(attacker)
    await begin(victim)
    assert (await answer(victim, apple, asked)).error_code == "bad_oauth_state"
    assert apple.redeemed == []
    refused = await attacker.client.post(
        "/auth/v1/callback", data={"state": asked["state"], "error": "user_cancelled_authorize"}
    )
    landing = Landing(refused.headers["Location"])
    assert landing.query["error"] == "user_cancelled_authorize"


async def test_a_secret_for_apple_is_made_from_the_key(world: World, apple: Issuer) -> None:
    options = {"team_id": "TEAM123456", "key_id": "KEY1234567"}
    await set_up_apple(world, client_secret=P8, options=options)
    browser = world.browser()
    landing = await answer(browser, apple, await begin(browser))
    # The test's issuer knows another secret; what it was sent is what counts.
    assert landing.query["error"] == "server_error"
    (form,) = apple.redeemed
    secret = form["client_secret"]
    claims = jwt.decode(
        secret, PRIVATE_KEY.public_key(), ["ES256"], audience="https://appleid.apple.com"
    )
    assert (claims["iss"], claims["sub"]) == ("TEAM123456", CLIENT_ID)
    assert 0 < claims["exp"] - claims["iat"] <= 600
    header = jwt.get_unverified_header(secret)
    assert (header["alg"], header["kid"]) == ("ES256", "KEY1234567")
    assert secret not in landing.url


@pytest.mark.parametrize(
    "key", ["no key", P8[:100], P8.replace("PRIVATE", "PUBLIC")], ids=["text", "cut", "public"]
)
async def test_a_key_that_is_none_is_told_without_it(world: World, apple: Issuer, key: str) -> None:
    await set_up_apple(world, client_secret=key, options={"team_id": "T", "key_id": "K"})
    browser = world.browser()
    landing = await answer(browser, apple, await begin(browser))
    assert landing.error_code == "oauth_provider_not_supported"
    assert key not in landing.url
    assert apple.redeemed == []


async def test_cookies_of_https_are_held_to_it(installation: Installation, apple: Issuer) -> None:
    """Apple's form comes from another site, and would come without a cookie that is Lax."""
    settings = ApiSettings(auth_private_urls=True, public_url="https://api.example")
    async with running(installation, settings) as api:
        world = World(api, apple)
        await set_up_apple(world)
        await world.provide()
        answers = {
            name: await api.client.get("/auth/v1/authorize", params={"provider": name})
            for name in ("acme", "apple")
        }
        cookies = {name: found.headers["Set-Cookie"] for name, found in answers.items()}
        assert cookies["acme"].startswith("__Host-butterbase-oauth=")
        assert "SameSite=Lax" in cookies["acme"]
        assert cookies["apple"].startswith("__Host-butterbase-oauth-post=")
        assert "SameSite=None" in cookies["apple"]
        for cookie in cookies.values():
            assert "Secure" in cookie
            assert "HttpOnly" in cookie
        url = answers["apple"].headers["Location"]
        asked = {key: value for key, (value,) in parse_qs(urlsplit(url).query).items()}
        assert asked["redirect_uri"] == "https://api.example/auth/v1/callback"
        apple.issued["apple-code"] = asked
        form = {"state": asked["state"], "code": "apple-code"}
        secrets = [cookie.partition(";")[0] for cookie in cookies.values()]
        for sent, is_ours in [("", False), (secrets[0], False), (secrets[1], True)]:
            posted = await api.client.post("/auth/v1/callback", data=form, headers={"Cookie": sent})
            assert ("access_token=" in posted.headers["Location"]) is is_ours
