"""A change of address, confirmed at both; a code to show that one is there still."""

import asyncio
from typing import Any

import httpx

from tests.api.auth.mail.conftest import ANA, PASSWORD, SITE, Post, Received, bearer

NEW = "ana@new.example"
HALF = "Confirmation link accepted. Please proceed to confirm link sent to the other email"


async def change(post: Post, session: dict[str, Any], **body: Any) -> httpx.Response:
    return await post.api.client.put(
        "/auth/v1/user", json=body, headers=post.api.anon | bearer(session)
    )


async def asked(post: Post, session: dict[str, Any], email: str = NEW) -> dict[str, Received]:
    """The mails of a change by recipient."""
    answer = await change(post, session, email=email)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["email"], answer.json()["new_email"]) == (ANA, email)
    mails = [await post.mail(), await post.mail()]
    return {mail.recipient: mail for mail in mails}


async def test_both_addresses_confirm_by_link(post: Post) -> None:
    session = await post.member()
    mails = await asked(post, session)
    assert set(mails) == {ANA, NEW}
    address, _, fragment = await post.follow(mails[NEW].link)
    assert (address, fragment["message"]) == (SITE, HALF)
    assert "access_token" not in fragment
    assert post.sql("select email from auth.users") == [(ANA,)]
    _, _, fragment = await post.follow(mails[ANA].link)
    me = await post.api.client.get("/auth/v1/user", headers=post.api.anon | bearer(fragment))
    assert me.json()["email"] == NEW
    assert "new_email" not in me.json()
    assert me.json()["identities"][0]["email"] == NEW
    assert (await post.sign_in(NEW)).status_code == 200
    assert (await post.sign_in(ANA)).status_code == 400


async def test_both_addresses_confirm_by_code(post: Post) -> None:
    mails = await asked(post, await post.member())
    first = await post.verify(type="email_change", email=ANA, token=mails[ANA].code)
    assert (first.status_code, first.json()) == (200, {"msg": HALF, "code": "200"})
    second = await post.verify(type="email_change", email=NEW, token=mails[NEW].code)
    assert second.json()["user"]["email"] == NEW


async def test_both_at_once_make_one_change(post: Post) -> None:
    mails = await asked(post, await post.member())
    answers = await asyncio.gather(
        *(post.verify(type="email_change", token_hash=mail.token) for mail in mails.values())
    )
    assert sorted("user" in answer.json() for answer in answers) == [False, True]
    assert post.sql("select email from auth.users") == [(NEW,)]


async def test_one_address_does_not_confirm_for_the_other(post: Post) -> None:
    mails = await asked(post, await post.member())
    assert (await post.verify(type="email_change", token_hash=mails[NEW].token)).is_success
    for attempt in (
        {"token_hash": mails[NEW].token},
        {"email": NEW, "token": mails[NEW].code},
        {"email": NEW, "token": mails[ANA].code},
        {"email": ANA, "token": mails[NEW].code},
    ):
        assert (await post.verify(type="email_change", **attempt)).status_code == 403
    assert post.sql("select email from auth.users") == [(ANA,)]


async def test_a_confirmation_does_not_count_for_the_next_change(post: Post) -> None:
    session = await post.member()
    old = await asked(post, session)
    await post.verify(type="email_change", token_hash=old[ANA].token)
    post.forget_limits()
    new = await asked(post, session, "thief@new.example")
    assert (await post.verify(type="email_change", token_hash=old[NEW].token)).status_code == 403
    half = await post.verify(type="email_change", token_hash=new["thief@new.example"].token)
    assert half.json()["msg"] == HALF
    assert post.sql("select email from auth.users") == [(ANA,)]


async def test_the_new_address_alone_confirms_where_the_app_says_so(post: Post) -> None:
    await post.configure(mail={"is_email_change_double": False})
    session = await post.member()
    assert (await change(post, session, email=NEW)).status_code == 200
    mail = await post.mail()
    assert mail.recipient == NEW
    changed = await post.verify(type="email_change", token_hash=mail.token)
    assert changed.json()["user"]["email"] == NEW
    assert len(post.server.mails) == post.read_count


async def test_a_change_to_anothers_address_is_answered_as_any_and_never_happens(
    post: Post,
) -> None:
    session = await post.member()
    await post.member(NEW)
    answer = await change(post, session, email=NEW)
    assert (answer.status_code, answer.json()["new_email"]) == (200, NEW)
    mail = await post.mail()
    assert mail.recipient == ANA
    assert (await post.verify(type="email_change", token_hash=mail.token)).json()["msg"] == HALF
    assert post.sql("select count(*) from auth.users where email = %s", NEW) == [(1,)]
    assert len(post.server.mails) == post.read_count


async def test_an_address_that_was_taken_meanwhile_is_told(post: Post) -> None:
    mails = await asked(post, await post.member())
    post.sql("insert into auth.users (email) values (%s)", NEW)
    await post.verify(type="email_change", token_hash=mails[ANA].token)
    refused = await post.verify(type="email_change", token_hash=mails[NEW].token)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "email_exists")


async def test_the_mails_of_a_change_are_sent_again(post: Post) -> None:
    old = await asked(post, await post.member())
    post.forget_limits()
    assert (await post.ask("resend", {"type": "email_change", "email": ANA})).json() == {}
    again = {mail.recipient: mail for mail in (await post.mail(), await post.mail())}
    assert set(again) == {ANA, NEW}
    assert (await post.verify(type="email_change", token_hash=old[ANA].token)).status_code == 403
    await post.verify(type="email_change", token_hash=again[ANA].token)
    done = await post.verify(type="email_change", token_hash=again[NEW].token)
    assert done.json()["user"]["email"] == NEW


async def test_an_anonymous_user_gets_an_address(post: Post) -> None:
    await post.configure(is_anonymous_enabled=True)
    session = (await post.ask("signup")).json()
    answer = await change(post, session, email=NEW)
    assert answer.status_code == 200, answer.text
    mail = await post.mail()
    upgraded = (await post.verify(type="email_change", token_hash=mail.token)).json()["user"]
    assert (upgraded["email"], upgraded["is_anonymous"]) == (NEW, False)
    assert upgraded["id"] == session["user"]["id"]
    assert upgraded["app_metadata"] == {"provider": "email", "providers": ["email"]}


async def nonce(post: Post, session: dict[str, Any]) -> str:
    answer = await post.api.client.get(
        "/auth/v1/reauthenticate", headers=post.api.anon | bearer(session)
    )
    assert (answer.status_code, answer.json()) == (200, {})
    mail = await post.mail()
    assert mail.subject.startswith(mail.code)
    assert "verify" not in mail.text
    return mail.code


async def test_a_password_is_changed_after_a_reauthentication(post: Post) -> None:
    session = await post.member()
    await post.configure(is_reauthentication_required=True)
    post.sql("update auth.sessions set created_at = now() - interval '25 hours'")
    refused = await change(post, session, password="another horse")
    assert (refused.status_code, refused.json()["error_code"]) == (400, "reauthentication_needed")
    code = await nonce(post, session)
    wrong = await change(post, session, password="another horse", nonce="x")
    assert (wrong.status_code, wrong.json()["error_code"]) == (422, "reauthentication_not_valid")
    done = await change(post, session, password="another horse", nonce=code)
    assert done.status_code == 200, done.text
    again = await change(post, session, password="a third horse", nonce=code)
    assert again.json()["error_code"] == "reauthentication_not_valid"


async def test_the_code_of_a_reauthentication_is_of_its_user(post: Post) -> None:
    session, other = await post.member(), await post.member("eva@example.com")
    await post.configure(is_reauthentication_required=True)
    post.sql("update auth.sessions set created_at = now() - interval '25 hours'")
    code = await nonce(post, other)
    stolen = await change(post, session, password="another horse", nonce=code)
    assert stolen.json()["error_code"] == "reauthentication_not_valid"


async def test_guesses_of_a_reauthentication_are_counted(post: Post) -> None:
    session = await post.member()
    await post.configure(is_reauthentication_required=True)
    post.sql("update auth.sessions set created_at = now() - interval '25 hours'")
    code = await nonce(post, session)
    for number in range(1, 6):
        guess = str((int(code) + number) % 10**6).zfill(6)
        assert (await change(post, session, password="p" * 9, nonce=guess)).status_code == 422
    late = await change(post, session, password="another horse", nonce=code)
    assert late.status_code == 422
    assert (await post.sign_in(password=PASSWORD)).status_code == 200
