"""The unmodified `supabase_auth` of PyPI, both of its clients: users and their sessions."""

import time
from typing import Any

import pytest
from supabase_auth.errors import (
    AuthInvalidJwtError,
    AuthSessionMissingError,
    AuthWeakPasswordError,
)

from tests.clients.auth import ANA, PASSWORD, WELCOME, Auth, with_claims
from tests.clients.auth_py import Client, Clients, events_of, refusal, refused_with

CREDENTIALS = {"email": ANA, "password": PASSWORD}
NEW_PASSWORD = "battery staple"


async def session_id(client: Client) -> str:
    return str((await client.get_claims())["claims"]["session_id"])


async def test_who_signs_up_confirms_the_address_by_a_code(auth: Auth, clients: Clients) -> None:
    client = clients.new()
    events = await events_of(client)
    made = await client.sign_up({**CREDENTIALS, "options": {"data": {"name": "Ana"}}})
    assert made.session is None
    assert (made.user.email, made.user.user_metadata) == (ANA, {"name": "Ana"})
    assert made.user.confirmation_sent_at is not None
    assert made.user.email_confirmed_at is None
    await refused_with("email_not_confirmed", client.sign_in_with_password(CREDENTIALS))
    code = auth.mail(ANA).code
    opened = await client.verify_otp({"type": "signup", "email": ANA, "token": code})
    assert opened.user.id == made.user.id
    assert opened.user.email_confirmed_at is not None
    assert [identity.provider for identity in opened.user.identities] == ["email"]
    assert events == ["SIGNED_IN"]
    assert (await client.get_user()).user == opened.user
    await refused_with(
        "otp_expired", client.verify_otp({"type": "signup", "email": ANA, "token": code})
    )


async def test_an_address_that_is_taken_looks_free(auth: Auth, clients: Clients) -> None:
    first = (await (await clients.member()).get_user()).user
    again = (await clients.new().sign_up(CREDENTIALS)).user
    assert again.id != first.id
    assert (again.email, again.email_confirmed_at) == (ANA, None)
    assert auth.mail(ANA).kind == "confirmation"


async def test_without_confirmation_who_signs_up_is_signed_in(auth: Auth, clients: Clients) -> None:
    auth.configure(mail={"is_autoconfirmed": True})
    client = clients.new()
    made = await client.sign_up(CREDENTIALS)
    session = await client.get_session()
    assert session.access_token == made.session.access_token
    assert session.user.email_confirmed_at is not None
    error = await refusal(clients.new().sign_up(CREDENTIALS))
    assert (error.status, error.code) == (422, "user_already_exists")


async def test_a_password_signs_in(clients: Clients) -> None:
    await clients.member()
    client = clients.new()
    events = await events_of(client)
    opened = await client.sign_in_with_password(CREDENTIALS)
    assert (opened.session.token_type, opened.session.expires_in) == ("bearer", 3600)
    assert opened.user.last_sign_in_at is not None
    assert events == ["SIGNED_IN"]


async def test_refusals_are_of_the_clients_classes(clients: Clients) -> None:
    client = clients.new()
    error = await refusal(client.sign_in_with_password(CREDENTIALS))
    assert (error.status, error.code) == (400, "invalid_credentials")
    assert error.message == "Invalid login credentials"
    with pytest.raises(AuthWeakPasswordError) as weak:
        await client.sign_up({"email": ANA, "password": "short"})
    assert (weak.value.status, weak.value.reasons) == (422, ["length"])
    await refused_with(
        "email_address_invalid", client.sign_up({"email": "ana", "password": PASSWORD})
    )
    await refused_with(
        "phone_provider_disabled", client.sign_up({"phone": "+100", "password": PASSWORD})
    )
    for request in (client.update_user({"data": {}}), client.refresh_session()):
        with pytest.raises(AuthSessionMissingError):
            await request
    assert await client.get_user() is None


async def test_required_characters_are_a_reason(auth: Auth, clients: Clients) -> None:
    auth.configure(password={"length_min": 8, "required_characters": ["0123456789"]})
    with pytest.raises(AuthWeakPasswordError) as weak:
        await clients.new().sign_up({"email": ANA, "password": "horse"})
    assert weak.value.reasons == ["length", "characters"]


async def test_limits_have_their_codes(auth: Auth, clients: Clients) -> None:
    auth.configure(rate_limits={"is_enabled": True})
    client = clients.new()
    await client.sign_in_with_otp({"email": ANA})
    error = await refusal(client.sign_in_with_otp({"email": ANA}))
    assert (error.status, error.code) == (429, "over_email_send_rate_limit")
    assert "you can only request this after" in error.message


async def test_an_anonymous_user_becomes_a_permanent_one(auth: Auth, clients: Clients) -> None:
    client = clients.new()
    made = await client.sign_in_anonymously({"options": {"data": {"cart": 3}}})
    assert made.user.is_anonymous
    claims = (await client.get_claims())["claims"]
    assert (claims["is_anonymous"], claims["role"]) == (True, "authenticated")
    await client.update_user({"email": ANA})
    code = auth.mail(ANA).code
    opened = await client.verify_otp({"type": "email_change", "email": ANA, "token": code})
    assert (opened.user.id, opened.user.is_anonymous) == (made.user.id, False)
    await client.update_user({"password": PASSWORD})
    again = (await (await clients.signed_in()).get_user()).user
    assert (again.id, again.user_metadata["cart"]) == (made.user.id, 3)


async def test_without_confirmation_an_anonymous_user_is_permanent_at_once(
    auth: Auth, clients: Clients
) -> None:
    auth.configure(mail={"is_autoconfirmed": True})
    client = clients.new()
    made = await client.sign_in_anonymously()
    changed = (await client.update_user(CREDENTIALS)).user
    assert (changed.id, changed.email, changed.is_anonymous) == (made.user.id, ANA, False)
    await client.refresh_session()
    assert not (await client.get_claims())["claims"]["is_anonymous"]
    await clients.signed_in()


async def test_anonymous_users_can_be_refused(auth: Auth, clients: Clients) -> None:
    auth.configure(is_anonymous_enabled=False)
    await refused_with("anonymous_provider_disabled", clients.new().sign_in_anonymously())


async def test_a_session_is_refreshed_and_stays_the_same(clients: Clients) -> None:
    client = await clients.member()
    before, id_before = await client.get_session(), await session_id(client)
    events = await events_of(client)
    after = (await client.refresh_session()).session
    assert events == ["TOKEN_REFRESHED"]
    assert after.refresh_token != before.refresh_token
    assert await session_id(client) == id_before
    assert (await client.get_user()).user.email == ANA


async def test_a_session_is_set_from_its_tokens(clients: Clients) -> None:
    session = await (await clients.member()).get_session()
    other, late = clients.new(), clients.new()
    await other.set_session(session.access_token, session.refresh_token)
    assert (await other.get_user()).user.email == ANA
    expired = with_claims(session.access_token, exp=int(time.time()) - 60)
    refreshed = (await late.set_session(expired, session.refresh_token)).session
    assert refreshed.access_token != session.access_token
    assert (await late.get_user()).user.email == ANA


async def test_a_used_refresh_token_ends_its_session(auth: Auth, clients: Clients) -> None:
    auth.configure(refresh_reuse_s=0)
    client = await clients.member()
    stolen = (await client.get_session()).refresh_token
    await client.refresh_session()
    await client.refresh_session()
    error = await refusal(clients.new().refresh_session(stolen))
    assert (error.status, error.code) == (400, "refresh_token_already_used")
    await refused_with("refresh_token_not_found", client.refresh_session())


async def test_a_current_password_opens_a_change(auth: Auth, clients: Clients) -> None:
    auth.configure(is_current_password_required=True)
    client = await clients.member()
    await refused_with("current_password_required", client.update_user({"password": NEW_PASSWORD}))
    wrong = client.update_user({"password": NEW_PASSWORD, "current_password": "x"})
    await refused_with("current_password_invalid", wrong)
    await client.update_user({"password": NEW_PASSWORD, "current_password": PASSWORD})
    await clients.signed_in(NEW_PASSWORD)


async def test_a_user_changes_data(clients: Clients) -> None:
    client = await clients.member()
    await client.update_user({"data": {"name": "Ana", "color": "red"}})
    changed = (await client.update_user({"data": {"color": None}})).user
    assert changed.user_metadata["name"] == "Ana"
    assert changed.user_metadata.get("color") is None


@pytest.mark.parametrize(
    ("scope", "left"),
    [("global", []), ("others", ["here"]), ("local", ["there"])],
)
async def test_sessions_end_by_scope(clients: Clients, scope: str, left: list[str]) -> None:
    devices = {"here": await clients.member(), "there": await clients.signed_in()}
    tokens = {name: await client.get_session() for name, client in devices.items()}
    await devices["here"].sign_out({"scope": scope})
    assert (await devices["here"].get_session() is not None) is ("here" in left)
    for name, session in tokens.items():
        asked = clients.new().get_user(session.access_token)
        if name in left:
            assert (await asked).user.email == ANA
            await clients.new().refresh_session(session.refresh_token)
        else:
            error = await refusal(asked)
            assert (error.status, error.code) == (403, "session_not_found")
            late = clients.new().refresh_session(session.refresh_token)
            await refused_with("refresh_token_not_found", late)


async def test_claims_are_verified_by_the_public_keys(clients: Clients) -> None:
    client = await clients.member()
    found = await client.get_claims()
    assert found["headers"]["alg"] == "ES256"
    session = await client.get_session()
    assert found["claims"]["sub"] == session.user.id
    assert (found["claims"]["aud"], found["claims"]["aal"]) == ("authenticated", "aal1")
    forged = with_claims(session.access_token, role="service_role")
    with pytest.raises(AuthInvalidJwtError):
        await client.get_claims(forged)


async def test_claims_of_hs256_are_verified_by_the_server(auth: Auth, clients: Clients) -> None:
    auth.configure(jwt_algorithm="HS256")
    client = await clients.member()
    assert (await client.get_claims())["headers"]["alg"] == "HS256"
    token = (await client.get_session()).access_token
    await refused_with("bad_jwt", client.get_claims(with_claims(token, role="service_role")))


async def test_an_identity_is_linked_by_a_url_of_ours(auth: Auth, clients: Clients) -> None:
    client = await clients.member()
    asked: dict[str, Any] = {"provider": "google", "options": {"redirect_to": WELCOME}}
    assert (await client.link_identity(asked)).url.startswith(f"{auth.url}/authorize?")
    (identity,) = (await client.get_user_identities()).identities
    assert (identity.provider, identity.identity_data["email"]) == ("email", ANA)
    await refused_with("single_identity_not_deletable", client.unlink_identity(identity))
    unknown: dict[str, Any] = {"provider": "github"}
    await refused_with("provider_disabled", client.link_identity(unknown))
