"""Where browsers are led in the end, and what they are told there when it went wrong."""

from typing import Any

import pytest

from tests.api.auth.oauth.conftest import ANA, PKCE, SITE, World
from tests.api.auth.oauth.issuer import CLIENT_ID, CLIENT_SECRET

ALLOWED = "https://shop.example.net/welcome"


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (ALLOWED, ALLOWED),
        ("com.example.app://in", "com.example.app://in"),
        (f"{SITE}/deep", f"{SITE}/deep"),
        ("https://evil.example/", SITE),
        ("https://evil.example/.example.net/welcome", SITE),
        ("https://app.example@evil.example/", SITE),
        ("//evil.example", SITE),
        ("javascript:alert(1)", SITE),
        ("", SITE),
    ],
)
async def test_only_where_the_app_allows(world: World, asked: str, place: str) -> None:
    landing = await world.browser().sign_in(redirect_to=asked)
    assert landing.place == place
    assert "access_token" in landing.fragment


async def test_a_query_and_a_fragment_of_the_address_are_kept_apart(world: World) -> None:
    landing = await world.browser().sign_in(redirect_to=f"{SITE}/?next=1&code=old#old", **PKCE)
    assert landing.query["next"] == "1"
    assert landing.query["code"] != "old"
    assert landing.fragment == {}
    assert (await world.exchange(landing.query["code"]))[0] == 200


async def test_where_the_browser_came_from_counts_where_it_is_allowed(world: World) -> None:
    browser = world.browser()
    for referer, place in [(ALLOWED, ALLOWED), ("https://evil.example/", SITE)]:
        answer = await browser.client.get(
            "/auth/v1/authorize", params={"provider": "acme"}, headers={"Referer": referer}
        )
        landing = await browser.land(await browser.consent(answer.headers["Location"]))
        assert landing.place == place


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_a_refusal_of_the_provider_is_told(world: World, asked: dict[str, str]) -> None:
    world.issuer.refusal = "access_denied"
    landing = await world.browser().sign_in(redirect_to=ALLOWED, **asked)
    told = {
        "error": "access_denied",
        "error_code": "bad_oauth_callback",
        "error_description": "The user said no.",
    }
    assert (landing.place, landing.query) == (ALLOWED, told)
    assert landing.fragment == {**told, "sb": ""}
    assert world.rows("select count(*) from auth.flow_state") == [(0,)]


async def test_a_code_that_the_provider_refuses_is_told(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start(redirect_to=ALLOWED))
    world.issuer.issued.clear()
    landing = await browser.land(back)
    assert (landing.place, landing.query["error"]) == (ALLOWED, "server_error")
    assert "invalid_grant" in landing.query["error_description"]


async def test_a_provider_that_was_disabled_meanwhile_takes_nobody_back(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start())
    await world.provide(is_enabled=False)
    assert (await browser.land(back)).error_code == "provider_disabled"
    assert world.issuer.redeemed == []


@pytest.mark.parametrize("name", ["", "unknown", "google", "ACM", "bare", "off", "\0"])
async def test_a_provider_that_is_not_enabled_is_told_at_once(world: World, name: str) -> None:
    await world.provide("off", is_enabled=False)
    await world.configure(providers={"bare": {"client_id": "x"}})
    answer = await world.browser().client.get("/auth/v1/authorize", params={"provider": name})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "provider_disabled")
    assert answer.json()["msg"].startswith("Unsupported provider")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://accounts.google.com"},
        {"issuer": None},
        {"jwks_uri": 7},
        {"authorization_endpoint": None},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)//"},
    ],
)
async def test_discovery_that_is_not_the_issuers_is_refused(
    world: World, lie: dict[str, Any]
) -> None:
    world.issuer.metadata = lie
    answer = await world.browser().client.get("/auth/v1/authorize", params={"provider": "acme"})
    assert (answer.status_code, answer.json()["error_code"]) == (502, "unexpected_failure")


@pytest.mark.parametrize("lie", [{"userinfo_endpoint": "http://127.0.0.1:1/userinfo"}])
async def test_a_provider_that_falls_silent_is_told(world: World, lie: dict[str, Any]) -> None:
    world.issuer.metadata = lie
    world.issuer.id_token_claims = frozenset()
    landing = await world.browser().sign_in()
    assert landing.query["error"] == "temporarily_unavailable"
    assert landing.error_code == "unexpected_failure"


async def test_discovery_is_asked_for_once(world: World) -> None:
    for _ in range(3):
        await world.browser().sign_in()
    assert (world.issuer.discovery_count, world.issuer.key_fetch_count) == (1, 1)


@pytest.mark.parametrize(
    ("claims", "error_code"),
    [
        ({"nonce": "another"}, "validation_failed"),
        ({"nonce": None}, "validation_failed"),
        ({"aud": "another"}, "validation_failed"),
        ({"iss": "https://accounts.google.com"}, "validation_failed"),
        ({"exp": 1}, "validation_failed"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "validation_failed"),
        ({"sub": None}, "validation_failed"),
    ],
)
async def test_an_id_token_that_is_not_of_this_flow_signs_nobody_in(
    world: World, claims: dict[str, Any], error_code: str
) -> None:
    world.issuer.claims = claims
    landing = await world.browser().sign_in()
    assert landing.error_code == error_code
    assert "access_token" not in landing.fragment
    assert world.rows("select count(*) from auth.users") == [(0,)]


async def test_a_nonce_of_another_flow_signs_nobody_in(world: World) -> None:
    """An id_token that was stolen elsewhere is not taken in the place of this flow's."""
    await world.browser().sign_in()
    world.issuer.claims = {"nonce": world.issuer.asked[0]["nonce"]}
    landing = await world.browser().sign_in()
    assert landing.query["error_description"] == "Nonces mismatch"


async def test_userinfo_of_another_user_is_not_believed(world: World) -> None:
    world.issuer.id_token_claims = frozenset()
    world.issuer.userinfo = {"sub": "user-2"}
    assert (await world.browser().sign_in()).error_code == "validation_failed"
    world.issuer.userinfo = {}
    landing = await world.browser().sign_in()
    assert "access_token" in landing.fragment
    assert world.rows("select email from auth.users") == [(ANA,)]


async def test_a_client_that_posts_its_secret_is_served(world: World) -> None:
    world.issuer.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert "access_token" in (await world.browser().sign_in()).fragment
    assert world.issuer.redeemed[0]["client_secret"] == CLIENT_SECRET


async def test_nothing_secret_is_logged_or_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="butterbase")
    caplog.set_level("INFO")
    await world.browser().sign_in()
    world.issuer.claims = {"nonce": "lie"}
    await world.browser().sign_in(**PKCE)
    world.issuer.claims = {}
    world.issuer.metadata = {"token_endpoint": f"{world.issuer.url}/nowhere"}
    landing = await world.browser().sign_in(**PKCE)
    answer = await world.api.client.get("/auth/v1/admin/settings", headers=world.api.service)
    # The browsers of this test log where they go.
    browsing = ("/authorize?", "/callback/")
    logged = "\n".join(
        message
        for record in caplog.records
        if not any(place in (message := record.getMessage()) for place in browsing)
    )
    shown = logged + landing.url + answer.text
    assert CLIENT_ID in answer.text
    for asked in world.issuer.asked:
        assert asked["state"] not in shown
        assert asked["nonce"] not in shown
    for form in world.issuer.redeemed:
        assert form["code"] not in shown
        assert form["code_verifier"] not in shown
    assert CLIENT_SECRET not in shown
    assert "access-code-" not in shown
    (stored,) = world.rows("select config::text from auth.settings")
    assert CLIENT_SECRET not in stored[0]
