"""The unmodified `supabase_auth` of PyPI, both of its clients: mails, and what they open."""

import pytest
from supabase_auth.errors import AuthImplicitGrantRedirectError

from tests.clients.auth import ANA, PASSWORD, WELCOME, Auth, follow, query_of
from tests.clients.auth_py import Clients, events_of, refusal, refused_with

CREDENTIALS = {"email": ANA, "password": PASSWORD}
NEW_ADDRESS, NEW_PASSWORD = "ana@example.org", "battery staple"


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_mailed_code_signs_in(auth: Auth, clients: Clients, is_known: bool) -> None:
    if is_known:
        await clients.member()
    client = clients.new()
    assert (await client.sign_in_with_otp({"email": ANA})).message_id is None
    mail = auth.mail(ANA)
    opened = await client.verify_otp({"type": "email", "email": ANA, "token": mail.code})
    assert opened.user.email == ANA
    claims = (await client.get_claims())["claims"]
    assert [entry["method"] for entry in claims["amr"]] == ["otp"]


async def test_a_token_hash_signs_in(auth: Auth, clients: Clients) -> None:
    client = clients.new()
    await client.sign_in_with_otp({"email": ANA})
    token_hash = auth.mail(ANA).token_hash
    opened = await client.verify_otp({"type": "email", "token_hash": token_hash})
    assert opened.session.user.email == ANA
    again = client.verify_otp({"type": "email", "token_hash": token_hash})
    error = await refusal(again)
    assert (error.status, error.code) == (403, "otp_expired")


async def test_who_is_not_to_be_made_gets_no_account(auth: Auth, clients: Clients) -> None:
    options = {"should_create_user": False}
    await clients.new().sign_in_with_otp({"email": ANA, "options": options})
    assert await clients.admin().list_users() == []


async def test_a_mailed_link_signs_in(auth: Auth, clients: Clients) -> None:
    client = clients.new()
    options = {"email_redirect_to": WELCOME}
    await client.sign_in_with_otp({"email": ANA, "options": options})
    link = auth.mail(ANA).link
    url = follow(link)
    assert url.startswith(f"{WELCOME}#")
    await client.initialize(url=url)
    assert (await client.get_session()).user.email == ANA
    with pytest.raises(AuthImplicitGrantRedirectError) as used:
        await clients.new().initialize(url=follow(link))
    assert used.value.details == {"code": "otp_expired", "error": "access_denied"}


async def test_a_link_brings_a_code_to_who_has_the_verifier(auth: Auth, clients: Clients) -> None:
    client, thief = clients.new(flow_type="pkce"), clients.new(flow_type="pkce")

    async def code_of_link() -> str:
        options = {"email_redirect_to": WELCOME}
        await client.sign_in_with_otp({"email": ANA, "options": options})
        url = follow(auth.mail(ANA).link)
        code = query_of(url)["code"]
        assert url == f"{WELCOME}?code={code}"
        return code

    stolen = {"auth_code": await code_of_link(), "code_verifier": "x" * 43}
    await refused_with("bad_code_verifier", thief.exchange_code_for_session(stolen))
    events, code = await events_of(client), await code_of_link()
    opened = await client.exchange_code_for_session({"auth_code": code})
    assert opened.session.user.email == ANA
    assert events == ["SIGNED_IN"]
    again = {"auth_code": code, "code_verifier": "x" * 43}
    await refused_with("flow_state_not_found", client.exchange_code_for_session(again))


async def test_a_sign_up_is_confirmed_by_a_code_of_pkce(auth: Auth, clients: Clients) -> None:
    client = clients.new(flow_type="pkce")
    await client.sign_up({**CREDENTIALS, "options": {"email_redirect_to": WELCOME}})
    code = query_of(follow(auth.mail(ANA).link))["code"]
    await client.exchange_code_for_session({"auth_code": code})
    assert (await client.get_user()).user.email_confirmed_at is not None
    await clients.signed_in()


@pytest.mark.parametrize("flow", ["code", "token_hash", "pkce"])
async def test_a_forgotten_password_is_replaced(auth: Auth, clients: Clients, flow: str) -> None:
    await clients.member()
    client = clients.new(flow_type="pkce" if flow == "pkce" else "implicit")
    events = await events_of(client)
    await client.reset_password_for_email(ANA, {"redirect_to": WELCOME})
    mail = auth.mail(ANA)
    assert mail.kind == "recovery"
    if flow == "code":
        await client.verify_otp({"type": "recovery", "email": ANA, "token": mail.code})
    elif flow == "token_hash":
        await client.verify_otp({"type": "recovery", "token_hash": mail.token_hash})
    else:
        code = query_of(follow(mail.link))["code"]
        await client.exchange_code_for_session({"auth_code": code})
    assert events == ["PASSWORD_RECOVERY"]
    await refused_with("same_password", client.update_user({"password": PASSWORD}))
    await client.update_user({"password": NEW_PASSWORD})
    await refused_with("invalid_credentials", clients.signed_in())
    await clients.signed_in(NEW_PASSWORD)


async def test_a_recovery_for_nobody_is_answered_alike(clients: Clients) -> None:
    await clients.new().reset_password_for_email("nobody@example.com")


async def test_a_confirmation_is_sent_again(auth: Auth, clients: Clients) -> None:
    client = clients.new()
    await client.sign_up(CREDENTIALS)
    first = auth.mail(ANA)
    await client.resend({"type": "signup", "email": ANA})
    second = auth.mail(ANA)
    assert second.kind == "confirmation"
    old = client.verify_otp({"type": "signup", "token_hash": first.token_hash})
    await refused_with("otp_expired", old)
    await client.verify_otp({"type": "signup", "token_hash": second.token_hash})
    assert (await client.get_session()).user.email == ANA


async def test_a_nonce_opens_a_change_of_password(auth: Auth, clients: Clients) -> None:
    auth.configure(is_reauthentication_required=True)
    client = await clients.member()
    auth.sql("update auth.sessions set created_at = created_at - interval '25 hours'")
    await refused_with("reauthentication_needed", client.update_user({"password": NEW_PASSWORD}))
    await client.reauthenticate()
    mail = auth.mail(ANA)
    assert mail.kind == "reauthentication"
    wrong = client.update_user({"password": NEW_PASSWORD, "nonce": "x"})
    await refused_with("reauthentication_not_valid", wrong)
    await client.update_user({"password": NEW_PASSWORD, "nonce": mail.code})
    await clients.signed_in(NEW_PASSWORD)


async def test_an_address_changes_when_both_have_confirmed(auth: Auth, clients: Clients) -> None:
    client = await clients.member()
    events = await events_of(client)
    asked = (await client.update_user({"email": NEW_ADDRESS})).user
    assert (asked.email, asked.new_email) == (ANA, NEW_ADDRESS)
    assert asked.email_change_sent_at is not None
    assert events == ["USER_UPDATED"]
    await client.resend({"type": "email_change", "email": ANA})
    code = auth.mail(ANA).code
    half = await client.verify_otp({"type": "email_change", "email": ANA, "token": code})
    assert (half.user, half.session) == (None, None)
    assert (await client.get_user()).user.email == ANA
    token_hash = auth.mail(NEW_ADDRESS).token_hash
    done = await client.verify_otp({"type": "email_change", "token_hash": token_hash})
    assert (done.user.email, done.user.new_email) == (NEW_ADDRESS, None)
    assert done.session.user.id == asked.id


async def test_one_confirmation_suffices_where_the_app_says_so(
    auth: Auth, clients: Clients
) -> None:
    auth.configure(mail={"is_email_change_double": False})
    client = await clients.member()
    await client.update_user({"email": NEW_ADDRESS})
    code = auth.mail(NEW_ADDRESS).code
    asked = {"type": "email_change", "email": NEW_ADDRESS, "token": code}
    assert (await client.verify_otp(asked)).user.email == NEW_ADDRESS
