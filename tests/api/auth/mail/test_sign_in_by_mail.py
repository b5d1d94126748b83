"""Confirmation, magic link, recovery: what a person does with the mails."""

import base64
import hashlib

import pytest

from tests.api.auth.mail.conftest import ANA, PASSWORD, SENDER, SITE, Post, bearer

VERIFIER = "v" * 64
CHALLENGE = {
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .decode()
    .rstrip("="),
    "code_challenge_method": "s256",
}


async def test_an_address_is_confirmed_by_its_link(post: Post) -> None:
    answer = await post.ask(
        f"signup?redirect_to={SITE}/welcome", {"email": ANA, "password": PASSWORD}
    )
    assert answer.status_code == 200
    assert "access_token" not in answer.json()
    assert (await post.sign_in()).json()["error_code"] == "email_not_confirmed"
    mail = await post.mail()
    assert (mail.recipient, mail.type) == (ANA, "signup")
    assert post.server.mails[0]["From"] == f"The App <{SENDER}>"
    address, query, fragment = await post.follow(mail.link)
    assert (address, query) == (f"{SITE}/welcome", {})
    assert (fragment["type"], fragment["token_type"], fragment["sb"]) == ("signup", "bearer", "")
    me = await post.api.client.get("/auth/v1/user", headers=post.api.anon | bearer(fragment))
    assert me.json()["email"] == ANA
    assert me.json()["email_confirmed_at"]
    assert me.json()["identities"][0]["identity_data"]["email_verified"] is True
    renewed = await post.ask(
        "token?grant_type=refresh_token", {"refresh_token": fragment["refresh_token"]}
    )
    assert renewed.status_code == 200
    assert (await post.sign_in()).status_code == 200


async def test_an_address_is_confirmed_by_its_code(post: Post) -> None:
    await post.ask("signup", {"email": ANA, "password": PASSWORD})
    mail = await post.mail()
    session = await post.verify(type="signup", email="  ANA@example.com", token=mail.code)
    assert session.status_code == 200, session.text
    assert session.json()["user"]["email_confirmed_at"]
    assert (await post.sign_in()).status_code == 200


async def test_an_address_is_confirmed_by_its_token_hash(post: Post) -> None:
    await post.ask("signup", {"email": ANA, "password": PASSWORD})
    session = await post.verify(type="email", token_hash=(await post.mail()).token)
    assert session.json()["user"]["email"] == ANA


@pytest.mark.parametrize("type_", ["email", "magiclink"])
async def test_a_user_signs_in_by_code(post: Post, type_: str) -> None:
    await post.member()
    assert (await post.ask("otp", {"email": ANA, "create_user": False})).json() == {}
    mail = await post.mail()
    session = await post.verify(type=type_, email=ANA, token=mail.code)
    assert session.json()["user"]["email"] == ANA
    assert mail.subject == "Your link to sign in"


async def test_a_new_user_is_made_by_a_magic_link(post: Post) -> None:
    await post.ask("otp", {"email": ANA, "data": {"name": "Ana"}})
    ((confirmed_at,),) = post.sql("select email_confirmed_at from auth.users")
    assert confirmed_at is None
    _, _, fragment = await post.follow((await post.mail()).link)
    me = await post.api.client.get("/auth/v1/user", headers=post.api.anon | bearer(fragment))
    assert me.json()["user_metadata"] == {"name": "Ana"}
    assert me.json()["app_metadata"] == {"provider": "email", "providers": ["email"]}


async def test_a_password_is_reset(post: Post) -> None:
    await post.member()
    assert (await post.ask("recover", {"email": ANA})).json() == {}
    _, _, fragment = await post.follow((await post.mail()).link)
    assert fragment["type"] == "recovery"
    changed = await post.api.client.put(
        "/auth/v1/user",
        json={"password": "another horse"},
        headers=post.api.anon | bearer(fragment),
    )
    assert changed.status_code == 200, changed.text
    assert (await post.sign_in(password="another horse")).status_code == 200
    assert (await post.sign_in()).status_code == 400


async def test_a_confirmation_is_sent_again_and_the_first_is_void(post: Post) -> None:
    await post.ask("signup", {"email": ANA, "password": PASSWORD})
    first = await post.mail()
    post.forget_limits()
    assert (await post.ask("resend", {"type": "signup", "email": ANA})).json() == {}
    second = await post.mail()
    _, _, fragment = await post.follow(first.link)
    assert fragment["error_code"] == "otp_expired"
    refused = await post.verify(type="signup", email=ANA, token=first.code)
    assert refused.status_code == 403
    assert (await post.verify(type="signup", email=ANA, token=second.code)).status_code == 200
    post.forget_limits()
    assert (await post.ask("resend", {"type": "signup", "email": ANA})).json() == {}
    await post.ask("otp", {"email": ANA})
    assert (await post.mail()).subject == "Your link to sign in"


async def test_a_link_of_a_flow_leads_to_a_code_for_the_asking_client_alone(post: Post) -> None:
    await post.member()
    await post.ask(f"otp?redirect_to={SITE}/cb%3Fa=1", {"email": ANA, **CHALLENGE})
    mail = await post.mail()
    assert mail.token.startswith("pkce_")
    address, query, fragment = await post.follow(mail.link)
    assert (address, set(query), fragment) == (f"{SITE}/cb", {"a", "code"}, {})
    ((code_hash, challenge, method),) = post.sql(
        "select auth_code_hash, code_challenge, method from auth.flow_state"
    )
    assert code_hash == hashlib.sha256(query["code"].encode()).digest()
    assert (challenge, method) == (CHALLENGE["code_challenge"], "otp")


async def test_a_link_of_a_flow_cannot_be_made_one_without(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA, **CHALLENGE})
    link = (await post.mail()).link
    _, query, fragment = await post.follow(link.replace("pkce_", ""))
    assert fragment["error_code"] == "otp_expired"
    _, query, fragment = await post.follow(link)
    assert set(query) == {"code"}


async def test_the_code_of_a_flow_is_typed_for_a_session(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA, **CHALLENGE})
    session = await post.verify(type="email", email=ANA, token=(await post.mail()).code)
    assert session.json()["user"]["email"] == ANA


async def test_errors_of_a_flow_are_told_in_the_query_too(post: Post) -> None:
    link = f"{post.api.client.base_url}/auth/v1/verify?token=pkce_x&type=magiclink"
    address, query, fragment = await post.follow(link)
    assert address == SITE
    assert query["error_code"] == fragment["error_code"] == "otp_expired"
    assert fragment["error"] == "access_denied"
    assert fragment["error_description"] == "Email link is invalid or has expired"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"token": "1"}, "type"),
        ({"type": "email", "email": ANA}, "token"),
        ({"type": "email", "token": "1"}, "address"),
        ({"type": "email", "token": "1", "token_hash": "2"}, "token"),
        ({"type": "email", "token_hash": "2", "email": ANA}, "Only the token_hash"),
        ({"type": "root", "token_hash": "2"}, "verification type"),
        ({"type": "reauthentication", "email": ANA, "token": "1"}, "verification type"),
        ({"type": "email", "token_hash": "a\0b"}, "token"),
    ],
)
async def test_what_cannot_be_verified_is_told(
    post: Post, body: dict[str, str], message: str
) -> None:
    answer = await post.verify(**body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
    assert message in answer.json()["msg"]
