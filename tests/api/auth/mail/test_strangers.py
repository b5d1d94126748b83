"""Strangers who know an address, and nothing else: what they do to it does not reach its owner."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from butterbase.api.auth.auth_codes import s256
from butterbase.api.auth.one_time import CODE_TRIES_MAX, FAILURES_MAX
from butterbase.api.settings import ApiSettings
from tests.api.auth.mail.conftest import ANA, PASSWORD, Post, bearer
from tests.api.conftest import Api, running
from tests.installation import Installation

STRANGER, OWNER = {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "203.0.113.1"}
NEW = "ana@new.example"


@pytest.fixture
async def api(installation: Installation) -> AsyncIterator[Api]:
    """Behind a proxy, so that its clients have addresses of their own."""
    async with running(
        installation, ApiSettings(trusted_proxies="127.0.0.1", auth_private_urls=True)
    ) as api:
        yield api


def flow(verifier: str) -> dict[str, str]:
    return {"code_challenge": s256(verifier), "code_challenge_method": "s256"}


async def exchange(post: Post, code: str, verifier: str) -> httpx.Response:
    body = {"auth_code": code, "code_verifier": verifier}
    return await post.ask("token?grant_type=pkce", body)


async def admin(post: Post, path: str, **body: Any) -> httpx.Response:
    return await post.api.client.post(f"/auth/v1/{path}", json=body, headers=post.api.service)


async def put(post: Post, session: dict[str, Any], **body: Any) -> httpx.Response:
    return await post.api.client.put(
        "/auth/v1/user", json=body, headers=post.api.anon | bearer(session)
    )


async def test_an_invitation_opens_nothing_to_who_signed_up_before(post: Post) -> None:
    stranger = {"email": ANA, "password": "the stranger's", "data": {"name": "stranger"}}
    await post.ask("signup", stranger)
    await post.mail()
    assert (await admin(post, "invite", email=ANA, data={"team": "x"})).status_code == 200
    invitation = await post.mail()
    post.forget_limits()
    await post.ask("signup", stranger)  # nor to who does it again
    accepted = await post.verify(type="invite", token_hash=invitation.token)
    assert accepted.json()["user"]["user_metadata"] == {"team": "x"}
    assert (await post.sign_in(password="the stranger's")).status_code == 400


async def test_a_link_to_sign_up_has_the_administrators_password(post: Post) -> None:
    await post.ask("signup", {"email": ANA, "password": "the stranger's", "data": {"a": "b"}})
    made = await admin(post, "admin/generate_link", type="signup", email=ANA, password=PASSWORD)
    opened = await post.verify(type="signup", token_hash=made.json()["hashed_token"])
    assert opened.json()["user"]["user_metadata"] == {}
    assert (await post.sign_in(password="the stranger's")).status_code == 400
    assert (await post.sign_in()).status_code == 200


@pytest.mark.parametrize("text", ["\u00e9" * 2030, "\U0001f600" * 1010])
async def test_what_a_user_says_of_himself_fits_into_a_token(post: Post, text: str) -> None:
    assert (await post.ask("otp", {"email": ANA, "data": {"a": text}})).status_code == 200
    session = await post.verify(type="email", email=ANA, token=(await post.mail()).code)
    assert len(session.json()["access_token"]) < 8000
    me = await post.api.client.get("/auth/v1/user", headers=post.api.anon | bearer(session.json()))
    assert (me.status_code, me.json()["user_metadata"]) == (200, {"a": text})


@pytest.mark.parametrize("path", ["otp", "signup"])
async def test_nobody_gives_an_address_what_no_token_can_hold(post: Post, path: str) -> None:
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        nested = (opened * 700 + "1" + closed * 700).encode()
        body = b'{"email": "%b", "password": "%b", "data": {"a": %b}}' % (
            ANA.encode(),
            PASSWORD.encode(),
            nested,
        )
        answer = await post.api.client.post(f"/auth/v1/{path}", content=body, headers=post.api.anon)
        assert answer.status_code == 400
    assert post.sql("select id from auth.users") == []


async def test_the_owners_words_replace_the_strangers(post: Post) -> None:
    await post.ask("otp", {"email": ANA, "data": {"name": "stranger"}}, **STRANGER)
    await post.ask("otp", {"email": ANA, "data": {"name": "Ana"}}, **OWNER)
    await post.mail()
    session = await post.verify(type="email", token_hash=(await post.mail()).token)
    assert session.json()["user"]["user_metadata"] == {"name": "Ana"}


GIVEN = {"team": "x"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("admin/users", {"user_metadata": GIVEN}),
        ("admin/users", {"user_metadata": GIVEN, "password": PASSWORD}),
        ("admin/generate_link", {"type": "magiclink", "data": GIVEN}),
        ("admin/generate_link", {"type": "signup", "data": GIVEN, "password": PASSWORD}),
        ("invite", {"data": GIVEN}),
    ],
)
async def test_what_an_administrator_says_of_a_user_stays(
    post: Post, path: str, body: dict[str, Any]
) -> None:
    assert (await admin(post, path, email=ANA, **body)).status_code == 200
    if path == "invite":
        await post.mail()
    strangers = {"team": "mine", "name": "stranger"}
    signed_up = await post.ask(
        "signup", {"email": ANA, "password": "the stranger's", "data": strangers}
    )
    assert signed_up.status_code == 200
    await post.mail()
    post.forget_limits()
    assert (await post.ask("otp", {"email": ANA, "data": {"name": "Ana"}})).status_code == 200
    opened = await post.verify(type="email", email=ANA, token=(await post.mail()).code)
    assert opened.json()["user"]["user_metadata"] == {"team": "x", "name": "Ana"}


async def test_who_signs_up_after_a_strangers_mail_has_the_password_and_the_account(
    post: Post,
) -> None:
    await post.ask("otp", {"email": ANA, "data": {"name": "stranger"}}, **STRANGER)
    await post.mail()
    mine = {"email": ANA, "password": PASSWORD, "data": {"name": "Ana"}}
    await post.ask("signup", mine, **OWNER)
    session = await post.verify(type="signup", email=ANA, token=(await post.mail()).code)
    assert session.json()["user"]["user_metadata"] == {"name": "Ana"}
    assert (await post.sign_in()).status_code == 200


async def test_of_two_who_sign_up_neither_has_the_account_by_asking_again(post: Post) -> None:
    for password in ("the stranger's", PASSWORD, "the stranger's"):
        post.forget_limits()
        await post.ask("signup", {"email": ANA, "password": password})
        mail = await post.mail()  # several at a time may arrive in any order
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 200
    for password in ("the stranger's", PASSWORD):
        assert (await post.sign_in(password=password)).status_code == 400


@pytest.mark.parametrize("verifiers", [("s" * 43, "o" * 43), (None, None)])
async def test_a_stranger_who_asks_and_guesses_shuts_nobody_out(
    post: Post, verifiers: tuple[str | None, str | None]
) -> None:
    await post.member()
    theirs, mine = ({} if verifier is None else flow(verifier) for verifier in verifiers)
    for path in ("otp", "recover"):
        assert (await post.ask(path, {"email": ANA, **theirs}, **STRANGER)).status_code == 200
        await post.mail()
    assert (await post.ask("otp", {"email": ANA, **mine}, **OWNER)).status_code == 200
    mail = await post.mail()
    for path in ("otp", "recover"):  # and again, now that the owner has asked
        post.sql("update auth.rate_limits set tat = tat - interval '1 minute'")
        assert (await post.ask(path, {"email": ANA, **theirs}, **STRANGER)).status_code == 200
    for _ in range(CODE_TRIES_MAX):
        guess = {"type": "email", "email": ANA, "token": "000000"}
        await post.ask("verify", guess, **STRANGER)
    _, query, fragment = await post.follow(mail.link)
    if verifiers[1] is None:
        assert "access_token" in fragment
    else:
        assert (await exchange(post, query["code"], verifiers[1])).status_code == 200


async def test_one_stranger_does_not_use_up_what_is_mailed_to_an_address(post: Post) -> None:
    statuses = []
    for _ in range(40):
        statuses.append((await post.ask("recover", {"email": ANA}, **STRANGER)).status_code)
        post.sql("update auth.rate_limits set tat = tat - interval '1 minute'")
    assert 429 in statuses
    assert (await post.ask("recover", {"email": ANA}, **OWNER)).status_code == 200


async def test_a_stranger_keeps_few_tokens(post: Post) -> None:
    await post.member()
    await post.configure(rate_limits={"is_enabled": False})
    await post.ask("otp", {"email": ANA}, **OWNER)
    mine = await post.mail()
    for number in range(20):
        await post.ask("otp", {"email": ANA, **flow(f"{number:043}")}, **STRANGER)
    ((count,),) = post.sql("select count(*) from auth.one_time_tokens")
    assert count == 4
    assert (await post.verify(type="email", token_hash=mine.token)).status_code == 200


async def test_codes_are_guessed_a_few_times_a_day_whatever_is_asked_for(post: Post) -> None:
    await post.member()
    await post.configure(rate_limits={"is_enabled": False})
    for number in range(FAILURES_MAX):
        if number % (CODE_TRIES_MAX - 1) == 0:
            await post.ask("otp", {"email": ANA})
            mail = await post.mail()
        wrong = str((int(mail.code) + 1) % 10**6).zfill(6)
        await post.verify(type="email", email=ANA, token=wrong)
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    assert (await post.verify(type="email", email=ANA, token=mail.code)).status_code == 403
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 200


async def test_a_new_password_makes_void_what_was_mailed(post: Post) -> None:
    session, verifier = await post.member(), "s" * 43
    await put(post, session, email=NEW)
    change = {mail.recipient: mail for mail in (await post.mail(), await post.mail())}
    await post.ask("recover", {"email": ANA})
    link = await post.mail()
    await post.ask("otp", {"email": ANA, **flow(verifier)})
    _, query, _ = await post.follow((await post.mail()).link)
    changed = await put(post, session, password="another horse")
    assert changed.status_code == 200, changed.text
    assert "new_email" not in changed.json()
    for type_, mail in (("recovery", link), ("email_change", change[ANA])):
        assert (await post.verify(type=type_, token_hash=mail.token)).status_code == 403
    assert (await exchange(post, query["code"], verifier)).is_error


async def test_signing_out_everywhere_takes_codes_that_were_not_exchanged(post: Post) -> None:
    session, verifier = await post.member(), "s" * 43
    await post.ask("otp", {"email": ANA, **flow(verifier)})
    _, query, _ = await post.follow((await post.mail()).link)
    await post.ask("logout?scope=global", **bearer(session))
    assert (await exchange(post, query["code"], verifier)).is_error


async def test_a_session_that_has_ended_ends_no_other(post: Post) -> None:
    stolen = await post.member()
    mine = (await post.sign_in()).json()
    assert (await post.ask("logout?scope=local", **bearer(stolen))).status_code == 204
    for scope in ("global", "others", "local"):
        answer = await post.ask(f"logout?scope={scope}", **bearer(stolen))
        assert (answer.status_code, answer.json()["error_code"]) == (403, "session_not_found")
    me = await post.api.client.get("/auth/v1/user", headers=post.api.anon | bearer(mine))
    assert me.status_code == 200


async def test_an_address_is_one_however_it_is_written(post: Post) -> None:
    await post.member()
    assert (await post.ask("otp", {"email": ANA})).status_code == 200
    for written in ("ana@e\uff58ample.com", "ANA@example.com"):
        assert (await post.ask("otp", {"email": written})).status_code == 429
        assert (await post.sign_in(written)).status_code == 200
    code = (await post.mail()).code
    typed = await post.verify(type="email", email="ana@e\uff58ample.com", token=code)
    assert typed.status_code == 200
    assert post.sql("select email from auth.users") == [(ANA,)]


@pytest.mark.parametrize("path", ["otp", "recover", "resend", "signup"])
async def test_what_is_no_address_to_one_is_none_to_all(post: Post, path: str) -> None:
    for address in ('"a b"@example.com', "root@localhost"):
        body = {"email": address, "type": "signup", "password": PASSWORD}
        assert (await post.ask(path, body)).status_code == 400


async def test_a_change_that_is_half_confirmed_is_not_begun_anew_by_a_stranger(post: Post) -> None:
    session = await post.member()
    await put(post, session, email=NEW)
    mails = {mail.recipient: mail for mail in (await post.mail(), await post.mail())}
    await post.verify(type="email_change", token_hash=mails[ANA].token)
    post.forget_limits()
    await post.ask("resend", {"type": "email_change", "email": ANA}, **STRANGER)
    assert (await post.mail()).recipient == NEW  # who has confirmed is not asked again
    done = await post.verify(type="email_change", token_hash=mails[NEW].token)
    assert done.json()["user"]["email"] == NEW


async def test_a_hook_that_fails_does_not_tell_who_is_there(post: Post) -> None:
    await post.member()
    await post.configure(hooks={"before_user_created": "public.nope"})
    answers = [await post.ask("otp", {"email": email}) for email in (ANA, "eva@example.com")]
    assert [(a.status_code, a.content) for a in answers] == [(200, b"{}")] * 2
