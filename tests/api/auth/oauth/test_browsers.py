"""A flow ends in the browser that began it, once; and its answer is of the provider it asked."""

from urllib.parse import urlencode, urlsplit

import pytest

from tests.api.auth.oauth.conftest import PKCE, SITE, Landing, World
from tests.api.auth.oauth.issuer import issuing


def assert_refused(world: World, landing: Landing, code: str = "bad_oauth_state") -> None:
    assert (landing.place, landing.error_code) == (SITE, code)
    assert "code" not in landing.query
    assert "access_token" not in landing.fragment
    assert world.rows("select count(*) from auth.users") == [(0,)]


@pytest.mark.parametrize("asked", [{}, PKCE])
async def test_the_answer_is_refused_in_another_browser(
    world: World, asked: dict[str, str]
) -> None:
    """Else who sent it there would have signed somebody in to an account of their own."""
    attacker, victim = world.browser(), world.browser()
    back = await attacker.consent(await attacker.start(**asked))
    assert_refused(world, await victim.land(back))
    await victim.start()
    assert_refused(world, await victim.land(back))
    assert world.issuer.redeemed == []


async def test_a_refusal_elsewhere_does_not_end_the_flow(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start(**PKCE))
    await world.browser().land(back)
    assert "code" in (await browser.land(back)).query


async def test_a_state_is_good_once(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start(**PKCE))
    assert "code" in (await browser.land(back)).query
    landing = await browser.land(back)
    assert landing.error_code == "bad_oauth_state"
    assert len(world.issuer.redeemed) == 1


async def test_a_state_expires(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start(**PKCE))
    world.rows("update auth.flow_state set expires_at = now()")
    assert_refused(world, await browser.land(back))


@pytest.mark.parametrize("state", ["", "x", "A" * 43, "é" * 43, "=" * 43, "A" * 42 + "\n"])
async def test_a_state_that_is_not_ours_is_refused(world: World, state: str) -> None:
    browser = world.browser()
    await browser.start()
    asked = urlencode({"state": state, "code": "x"})
    assert_refused(world, await browser.land(f"/auth/v1/callback/acme?{asked}"))


async def test_a_code_is_no_state(world: World) -> None:
    """Nor does the row of a code take a browser back."""
    browser = world.browser()
    url = await browser.start(**PKCE)
    back = await browser.consent(url)
    await browser.land(back)
    landing = await browser.land(back)
    assert landing.error_code == "bad_oauth_state"
    assert world.rows("select count(*) from auth.flow_state") == [(1,)]


async def test_several_tabs_of_a_browser_go_their_ways(world: World) -> None:
    browser = world.browser()
    one, two = await browser.start(**PKCE), await browser.start(**PKCE)
    for url in (two, one):
        landing = await browser.land(await browser.consent(url))
        assert (await world.exchange(landing.query["code"]))[0] == 200


async def test_the_cookie_is_for_nobody_else(world: World) -> None:
    answer = await world.browser().client.get("/auth/v1/authorize", params={"provider": "acme"})
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    assert "domain" not in cookie


@pytest.mark.parametrize("cookie", ["short", "x" * 44, "é" * 43])
async def test_a_cookie_that_is_not_ours_is_replaced(world: World, cookie: str) -> None:
    answer = await world.browser().client.get(
        "/auth/v1/authorize",
        params={"provider": "acme"},
        headers=[(b"Cookie", f"butterbase-oauth={cookie}".encode())],
    )
    assert answer.status_code == 302
    assert cookie not in answer.headers["Set-Cookie"]


async def test_an_answer_for_another_provider_is_refused(world: World) -> None:
    """RFC 9700, 4.4: a malicious one leads the browser on to an honest one, to get its code."""
    async with issuing(email="mallory@example.com", email_verified=True) as mallory:
        await world.provide("mallory", mallory)
        browser = world.browser()
        asked = dict(
            part.split("=", 1) for part in urlsplit(await browser.start("mallory")).query.split("&")
        )
        back = f"/auth/v1/callback/acme?{urlencode({'code': 'honest'})}&state={asked['state']}"
        assert_refused(world, await browser.land(back), "bad_oauth_callback")
        assert mallory.redeemed == []


@pytest.mark.parametrize("told", ["https://mallory.example", ""])
async def test_an_answer_of_another_issuer_is_refused(world: World, told: str) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start())
    honest = urlencode({"iss": world.issuer.url})
    assert honest in back
    back = back.replace(honest, urlencode({"iss": told}) if told else "x=y")
    assert_refused(world, await browser.land(back), "bad_oauth_callback")
    assert world.issuer.redeemed == []


async def test_an_answer_without_a_code_is_refused(world: World) -> None:
    browser = world.browser()
    back = await browser.consent(await browser.start())
    assert_refused(world, await browser.land(back.replace("code=", "cod=")), "bad_oauth_callback")


async def test_too_many_parameters_are_refused(world: World) -> None:
    many = "&".join(f"x{at}=y" for at in range(200))
    answer = await world.browser().client.get(f"/auth/v1/callback/acme?{many}")
    assert answer.status_code == 400


async def test_flows_that_nobody_finished_go(world: World) -> None:
    browser = world.browser()
    await browser.start()
    world.rows("update auth.flow_state set expires_at = now() - interval '2 hours'")
    await browser.start()
    assert world.rows("select count(*) from auth.flow_state") == [(1,)]


async def test_flows_are_limited_by_address(world: World) -> None:
    await world.configure(rate_limits={"oauth": {"count": 1, "per_s": 3600, "burst": 2}})
    client = world.browser().client
    answers = [
        await client.get("/auth/v1/authorize", params={"provider": "acme"}) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [302, 302, 429]
