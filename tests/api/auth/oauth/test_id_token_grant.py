"""`grant_type=id_token`: a client that has signed in at the provider by itself."""

import base64
import hashlib
import time
from typing import Any

import jwt
import pytest
from joserfc.jwk import ECKey, RSAKey

from tests.api.auth.oauth.conftest import ANA, World
from tests.api.auth.oauth.issuer import CLIENT_ID, issuing, secret_key

BEN = "ben@example.com"


async def test_an_id_token_is_worth_a_session(world: World) -> None:
    status, session = await world.id_token(world.issuer.id_token())
    assert status == 200, session
    assert (session["user"]["email"], session["user"]["app_metadata"]["provider"]) == (ANA, "acme")
    assert "provider_token" not in session
    assert (await world.signed_in())["user"]["id"] == session["user"]["id"]
    (amr,) = jwt.decode(session["access_token"], options={"verify_signature": False})["amr"]
    assert (amr["method"], amr["provider"]) == ("oauth", "acme")


async def test_keys_of_any_kind_are_the_issuers(world: World) -> None:
    world.issuer.signing_key, world.issuer.algorithm = world.issuer.keys[1], "ES256"
    assert (await world.id_token(world.issuer.id_token()))[0] == 200


async def test_a_nonce_is_sent_as_it_was_made_and_told_hashed(world: World) -> None:
    hashed = hashlib.sha256(b"raw nonce").hexdigest()
    token = world.issuer.id_token(nonce=hashed)
    assert (await world.id_token(token, nonce="raw nonce"))[0] == 200
    for nonce, error in [
        ("other", ("invalid nonce", "Nonces mismatch")),
        (hashed, ("invalid nonce", "Nonces mismatch")),
        (None, ("invalid request", "Passed nonce and nonce in id_token should either both exist")),
    ]:
        status, refused = await world.id_token(token, nonce=nonce)
        assert (status, refused["error"]) == (400, error[0])
        assert refused["error_description"].startswith(error[1])
    status, _ = await world.id_token(world.issuer.id_token(), nonce="raw nonce")
    assert status == 400
    await world.provide(skip_nonce_check=True)
    assert (await world.id_token(token))[0] == 200


async def test_an_access_token_has_to_be_the_id_tokens(world: World) -> None:
    half = hashlib.sha256(b"access").digest()[:16]
    at_hash = base64.urlsafe_b64encode(half).decode().rstrip("=")
    token = world.issuer.id_token(at_hash=at_hash)
    assert (await world.id_token(token, access_token="access"))[0] == 200
    status, refused = await world.id_token(token, access_token="stolen")
    assert (status, refused["error"]) == (400, "invalid request")
    assert refused["error_description"].startswith("Bad ID token")
    assert (await world.id_token(world.issuer.id_token(), access_token="any"))[0] == 200


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"aud": "another"}, "Unacceptable audience in id_token"),
        ({"aud": ["another", CLIENT_ID]}, "Unacceptable audience in id_token"),
        ({"iss": "https://accounts.google.com"}, "Bad ID token"),
        ({"exp": -61}, "Bad ID token"),
        ({"exp": None}, "Bad ID token"),
        ({"iat": 300}, "Bad ID token"),
        ({"sub": ""}, "the provider told no id"),
        ({"sub": None}, "the provider told no id"),
    ],
)
async def test_a_token_of_others_is_refused(
    world: World, claims: dict[str, Any], told: str
) -> None:
    # Times count from now, which is not when the tests were collected.
    times = {name: int(time.time()) + s for name, s in claims.items() if isinstance(s, int)}
    status, refused = await world.id_token(world.issuer.id_token(**claims | times))
    assert (status, refused["error"]) == (400, "invalid request")
    assert refused["error_description"].startswith(told)
    assert world.rows("select count(*) from auth.users") == [(0,)]


async def test_a_forged_token_is_refused(world: World) -> None:
    issuer = world.issuer
    forged = [issuer.id_token() + "x", "a.b.c", "x"]
    issuer.signing_key = RSAKey.generate_key(2048, {"kid": "rsa-1"})
    forged.append(issuer.id_token())
    issuer.signing_key, issuer.algorithm = ECKey.generate_key("P-256", {"kid": "x"}), "ES256"
    forged.append(issuer.id_token())
    issuer.signing_key, issuer.algorithm = secret_key("s" * 32), "HS256"
    forged.append(issuer.id_token())
    head, body, _ = forged[0].split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    forged += [f"{none}.{body}.", f"{head}.{body}."]
    for token in forged:
        status, refused = await world.id_token(token)
        assert (status, refused["error"]) == (400, "invalid request")
        assert token not in str(refused)
    assert world.rows("select count(*) from auth.users") == [(0,)]


async def test_unknown_keys_do_not_make_us_ask_the_issuer_each_time(world: World) -> None:
    world.issuer.header = {"kid": "unknown"}
    for _ in range(5):
        assert (await world.id_token(world.issuer.id_token()))[0] == 400
    assert world.issuer.key_fetch_count == 1


async def test_a_phone_may_be_another_client(world: World) -> None:
    token = world.issuer.id_token(aud="the phone's")
    assert (await world.id_token(token))[0] == 400
    await world.provide(additional_client_ids=["the phone's"])
    assert (await world.id_token(token))[0] == 200


async def test_a_token_is_of_the_provider_it_is_said_to_be_of(world: World) -> None:
    async with issuing(email=ANA, email_verified=True) as other:
        await world.provide("other", other)
        status, refused = await world.id_token(other.id_token())
        assert (status, refused["error"]) == (400, "invalid request")
        assert (await world.id_token(other.id_token(), provider="other"))[0] == 200


async def test_an_issuer_names_its_provider(world: World) -> None:
    await world.configure(providers={"bare": {"client_id": "x"}})
    token = world.issuer.id_token()
    named = {"provider": "", "client_id": CLIENT_ID, "issuer": world.issuer.url}
    assert (await world.id_token(token, **named))[0] == 200
    status, refused = await world.id_token(token, **(named | {"issuer": "https://evil.example"}))
    assert (status, refused["error_code"]) == (400, "provider_disabled")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"id_token": ""}, "invalid request"),
        ({"id_token": "x", "provider": ""}, "invalid request"),
    ],
)
async def test_what_is_missing_is_told(world: World, body: dict[str, Any], error: str) -> None:
    status, refused = await world.post("token?grant_type=id_token", {"provider": "acme", **body})
    assert (status, refused["error"]) == (400, error)


@pytest.mark.parametrize("provider", ["unknown", "github", "off"])
async def test_a_provider_that_is_not_enabled_or_has_no_tokens(world: World, provider: str) -> None:
    await world.provide("off", is_enabled=False)
    await world.configure(providers={"github": {"client_id": CLIENT_ID}})
    status, refused = await world.id_token(world.issuer.id_token(), provider=provider)
    assert status == 400
    assert refused["error_code"] in {"provider_disabled", "oauth_provider_not_supported"}


async def test_an_address_that_is_not_verified_opens_no_account(world: World) -> None:
    await world.new_user()
    world.issuer.user["email_verified"] = False
    status, refused = await world.id_token(world.issuer.id_token())
    assert (status, refused["error_code"]) == (422, "provider_email_needs_verification")


async def test_an_account_that_nobody_proved_is_taken_from_who_made_it(world: World) -> None:
    planted = await world.sign_up()
    status, session = await world.id_token(world.issuer.id_token())
    assert (status, session["user"]["id"]) == (200, planted["user"]["id"])
    assert (await world.sign_in_by_password())[0] == 400
    assert (await world.get("user", planted["access_token"]))[0] == 403


async def test_a_token_links_to_who_is_signed_in(world: World) -> None:
    ben = await world.sign_up(BEN)
    status, session = await world.id_token(
        world.issuer.id_token(), link_identity=True, bearer=ben["access_token"]
    )
    assert status == 200, session
    assert session["user"]["id"] == ben["user"]["id"]
    assert session["user"]["app_metadata"]["providers"] == ["email", "acme"]
    status, refused = await world.id_token(world.issuer.id_token(), link_identity=True)
    assert (status, refused["error_code"]) == (401, "no_authorization")
    await world.configure(is_manual_linking_enabled=False)
    status, refused = await world.id_token(
        world.issuer.id_token(), link_identity=True, bearer=ben["access_token"]
    )
    assert (status, refused["error_code"]) == (404, "manual_linking_disabled")


async def test_a_token_does_not_link_what_is_anothers(world: World) -> None:
    await world.signed_in()
    ben = await world.sign_up(BEN)
    status, refused = await world.id_token(
        world.issuer.id_token(), link_identity=True, bearer=ben["access_token"]
    )
    assert (status, refused["error_code"]) == (422, "identity_already_exists")


async def test_guesses_are_limited_by_address(world: World) -> None:
    await world.configure(rate_limits={"token": {"count": 1, "per_s": 3600, "burst": 2}})
    statuses = [(await world.id_token("x"))[0] for _ in range(3)]
    assert statuses == [400, 400, 429]
