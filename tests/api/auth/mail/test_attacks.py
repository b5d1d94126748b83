"""What somebody gets who wants another's account, or only to know of it."""

import asyncio
from typing import Any

import pytest

from butterbase.api.auth.one_time import CODE_TRIES_MAX
from tests.api.auth.mail.conftest import ANA, PASSWORD, SITE, Post, bearer
from tests.waiting import until

NOBODY = "nobody@example.com"


def wrong(code: str, number: int = 1) -> str:
    return str((int(code) + number) % 10**6).zfill(6)


async def test_a_link_opens_an_account_once(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    link = (await post.mail()).link
    fragments = [(await post.follow(link))[2] for _ in range(2)]
    assert ["access_token" in fragment for fragment in fragments] == [True, False]


async def test_of_many_at_once_one_opens_the_account(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    answers = await asyncio.gather(
        *(post.verify(type="email", token_hash=mail.token) for _ in range(5)),
        *(post.verify(type="email", email=ANA, token=mail.code) for _ in range(5)),
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 9
    ((count,),) = post.sql("select count(*) from auth.sessions")
    assert count == 2  # with the one that confirmed the address


async def test_a_link_is_followed_by_nothing_but_get_and_post(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    # As programs do that look at the links of a mail before its reader.
    for method in ("HEAD", "OPTIONS"):
        await post.api.client.request(method, mail.path)
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 200


async def test_a_code_is_guessed_a_few_times_and_its_link_stays_good(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    for number in range(1, CODE_TRIES_MAX + 1):
        guess = await post.verify(type="email", email=ANA, token=wrong(mail.code, number))
        assert (guess.status_code, guess.json()["error_code"]) == (403, "otp_expired")
    right = await post.verify(type="email", email=ANA, token=mail.code)
    assert (right.status_code, right.json()["msg"]) == (403, "Token has expired or is invalid")
    # Who guesses locks nobody out.
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 200


async def test_guesses_at_once_are_counted_too(post: Post) -> None:
    await post.member()
    await post.configure(rate_limits={"is_enabled": False})
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    await asyncio.gather(
        *(post.verify(type="email", email=ANA, token=wrong(mail.code, n)) for n in range(1, 21))
    )
    ((attempts,),) = post.sql("select attempts from auth.one_time_tokens")
    assert attempts == CODE_TRIES_MAX
    assert (await post.verify(type="email", email=ANA, token=mail.code)).status_code == 403


async def test_a_code_is_good_for_its_own_address_and_purpose(post: Post) -> None:
    session = await post.member()
    await post.member("eva@example.com")
    await post.ask("otp", {"email": ANA})
    code = (await post.mail()).code
    assert (await post.verify(type="email", email="eva@example.com", token=code)).is_error
    assert (await post.verify(type="email_change", email=ANA, token=code)).is_error
    await post.api.client.get("/auth/v1/reauthenticate", headers=post.api.anon | bearer(session))
    nonce = (await post.mail()).code
    assert (await post.verify(type="email", email=ANA, token=nonce)).is_error
    assert (await post.verify(type="email", email=ANA, token=code)).status_code == 200


async def test_tokens_expire(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    post.sql("update auth.one_time_tokens set expires_at = now()")
    assert (await post.verify(type="email", email=ANA, token=mail.code)).status_code == 403
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 403


async def test_tokens_live_as_long_as_the_settings_say(post: Post) -> None:
    await post.configure(mail={"otp_expiry_s": 600, "otp_length": 8})
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    ((life_s,),) = post.sql(
        "select extract(epoch from expires_at - created_at)::int from auth.one_time_tokens"
    )
    assert life_s == 600
    assert len([word for word in mail.text.split() if word.isdigit() and len(word) == 8]) == 1


@pytest.mark.parametrize("change", ["banned_until = 'infinity'", "deleted_at = now()"])
async def test_who_was_shut_out_does_not_get_in_by_mail(post: Post, change: str) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    post.sql(f"update auth.users set {change}")  # noqa: S608  of this test
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 403
    assert (await post.verify(type="email", email=ANA, token=mail.code)).status_code == 403


async def test_a_mail_to_the_old_address_opens_nothing_after_a_change(post: Post) -> None:
    await post.member()
    await post.ask("otp", {"email": ANA})
    mail = await post.mail()
    post.sql("update auth.users set email = 'new@example.com'")
    assert (await post.verify(type="email", token_hash=mail.token)).status_code == 403


async def test_the_database_holds_no_token_and_no_code(post: Post) -> None:
    post.server.replies = ["451 later"]
    await post.ask("otp", {"email": ANA})
    await until(lambda: post.server.try_count == 1)  # it is still in the outbox
    post.sql("update auth.mail_outbox set next_attempt_at = now()")
    rows = post.sql("select o::text, m::text from auth.one_time_tokens o, auth.mail_outbox m")
    await post.ask("otp", {"email": NOBODY})
    received = [await post.mail(), await post.mail()]
    mail = next(m for m in received if m.recipient == ANA)
    ((token_row, outbox_row),) = rows
    for row in (token_row, outbox_row):
        for secret in (mail.token, mail.code, bytes.fromhex(mail.token).hex()):
            assert secret not in row
    sealed = "select sealed from auth.mail_outbox where recipient = %s"
    await until(lambda: post.sql(sealed, ANA) == [(None,)])  # which is written after it was taken


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("otp", {"create_user": False}),
    ("otp", {}),
    ("magiclink", {"create_user": False}),
    ("recover", {}),
    ("resend", {"type": "signup"}),
    ("resend", {"type": "email_change"}),
]


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_answers_do_not_tell_who_has_an_account(
    post: Post, path: str, body: dict[str, Any]
) -> None:
    await post.member()
    answers = []
    for _ in range(2):  # the second time it is too soon for either
        for email in (ANA, NOBODY):
            answer = await post.ask(path, {"email": email, **body})
            headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
            answers.append((answer.status_code, answer.content, headers))
    assert answers[0] == answers[1]
    assert (answers[0][0], answers[0][1]) == (200, b"{}")
    assert [status for status, _, _ in answers[2:]] == [429, 429]


async def test_nobody_is_as_much_work_as_somebody(post: Post) -> None:
    """Both run one transaction that writes: what takes time is not left out for either."""
    await post.member()
    for email in (ANA, NOBODY):
        ((before,),) = post.sql("select count(*) from auth.audit_log_entries")
        await post.ask("recover", {"email": email})
        ((after,),) = post.sql("select count(*) from auth.audit_log_entries")
        assert after == before + 1
    ((traits,),) = post.sql(
        "select payload -> 'traits' from auth.audit_log_entries where payload ? 'traits' "
        "order by created_at desc limit 1"
    )
    assert traits == {"address": NOBODY}


async def test_nobody_gets_no_mail(post: Post) -> None:
    await post.member()
    await post.ask("recover", {"email": NOBODY})
    await post.ask("otp", {"email": NOBODY, "create_user": False})
    await post.ask("recover", {"email": ANA})
    assert (await post.mail()).recipient == ANA
    assert post.sql("select id from auth.mail_outbox where recipient = %s", NOBODY) == []
    assert post.sql("select id from auth.users where email = %s", NOBODY) == []


async def test_a_mail_goes_to_the_address_that_is_stored(post: Post) -> None:
    """U+212A, the sign for kelvin, is k in lower case: a domain like that can be had."""
    await post.member("kim@example.com")
    await post.ask("recover", {"email": "\u212aim@example.com"})
    await post.ask("recover", {"email": "KIM@example.com"})
    assert (await post.mail()).recipient == "kim@example.com"
    assert {to for recipients in post.server.recipients for to in recipients} == {"kim@example.com"}


async def test_mails_to_an_address_have_a_pace(post: Post) -> None:
    await post.member()
    first = await post.ask("otp", {"email": ANA})
    again = await post.ask("otp", {"email": " ANA@example.com "})
    assert (first.status_code, again.status_code) == (200, 429)
    assert again.json()["error_code"] == "over_email_send_rate_limit"
    message = again.json()["msg"]
    assert message.startswith("For security purposes, you can only request this after ")
    assert message.endswith(" seconds.")
    assert 1 <= int(message.split()[-2]) <= 60
    assert (await post.ask("otp", {"email": "eva@example.com"})).status_code == 200


async def test_who_asks_for_many_mails_is_stopped_by_address(post: Post) -> None:
    limit = {"count": 3, "per_s": 300, "burst": 3}
    await post.configure(rate_limits={"otp": limit, "verify": limit})
    statuses = [
        (await post.ask("recover", {"email": f"a{n}@example.com"})).status_code for n in range(4)
    ]
    assert statuses == [200, 200, 200, 429]
    guesses = [
        (await post.verify(type="email", email=ANA, token="000000")).status_code for _ in range(4)
    ]
    assert guesses == [403, 403, 403, 429]


ELSEWHERE = [
    "https://evil.example/",
    "https://app.example.evil.example/",
    "https://app.example@evil.example/",
    "//evil.example",
    "javascript:alert('evil')",
    "https://app.example\\@evil.example",
    "https://app.example/\r\nX-Evil: 1",
    "\0evil",
]


async def test_a_link_is_asked_to_lead_nowhere_that_is_not_listed(post: Post) -> None:
    for number, target in enumerate(ELSEWHERE):
        asked = await post.api.client.post(
            "/auth/v1/otp",
            params={"redirect_to": target},
            json={"email": f"a{number}@example.com"},
            headers=post.api.anon,
        )
        assert asked.status_code == 200
        assert "evil" not in (await post.mail()).link


async def test_a_link_that_was_changed_leads_nowhere_that_is_not_listed(post: Post) -> None:
    await post.configure(rate_limits={"is_enabled": False})
    for target in ELSEWHERE:
        await post.ask("otp", {"email": ANA})
        token = {"token": (await post.mail()).token, "type": "magiclink"}
        answer = await post.api.client.get(
            "/auth/v1/verify", params={**token, "redirect_to": target}
        )
        assert answer.headers["Location"].startswith(f"{SITE}#access_token=")
        assert "X-Evil" not in answer.headers


async def test_a_link_leads_where_it_was_asked_to(post: Post) -> None:
    await post.member()
    await post.ask("otp?redirect_to=myapp%3A%2F%2Fcallback", {"email": ANA})
    address, _, fragment = await post.follow((await post.mail()).link)
    assert address.startswith("myapp://callback")
    assert "access_token" in fragment


@pytest.mark.parametrize("path", ["otp", "recover", "resend", "signup"])
async def test_an_address_that_is_none_gets_no_mail(post: Post, path: str) -> None:
    for address in (
        "ana@example.com\r\nBcc: eva@example.com",
        "ana@example.com, eva@example.com",
        "ana@example.com\nSubject: hello",
        '"a\r\nBcc: eva@example.com"@x.yz',
        "<ana@example.com>",
        "ana@example.com\0",
        "ana",
    ):
        body = {"email": address, "type": "signup", "password": PASSWORD}
        answer = await post.ask(path, body)
        assert answer.status_code == 400, address
    assert post.sql("select id from auth.mail_outbox") == []
    assert post.sql("select id from auth.users") == []


async def test_what_a_user_says_of_himself_is_no_template_and_no_markup(post: Post) -> None:
    await post.configure(
        mail={
            "templates": {
                "confirmation": {
                    "subject": "Hi {{ .Data.name }}",
                    "html": "<p>{{ .Data.name }}: {{ .ConfirmationURL }}</p>",
                }
            }
        }
    )
    name = "<script>x</script>{{ .Token }}\r\nBcc: eva@example.com"
    await post.ask("signup", {"email": ANA, "password": PASSWORD, "data": {"name": name}})
    await until(lambda: len(post.server.mails) == 1)
    (message,) = post.server.mails
    body = message.get_body(("html",))
    assert body is not None
    assert "&lt;script&gt;x&lt;/script&gt;{{ .Token }}" in body.get_content()
    assert message["Bcc"] is None
    assert "\n" not in message["Subject"]
    assert post.server.recipients == [[ANA]]


async def test_a_first_owner_by_password_does_not_stay_when_the_mailbox_has_another(
    post: Post,
) -> None:
    """Somebody signs up with another's address; its owner comes by a link, and has it alone."""
    await post.ask("signup", {"email": ANA, "password": "the stranger's"})
    await post.mail()
    post.forget_limits()
    await post.ask("otp", {"email": ANA})
    _, _, fragment = await post.follow((await post.mail()).link)
    assert "access_token" in fragment
    assert (await post.sign_in(password="the stranger's")).status_code == 400


async def test_a_link_names_our_own_host_whatever_the_request_says(post: Post) -> None:
    await post.ask("otp", {"email": ANA}, **{"X-Forwarded-Host": "evil.example", "Host": "evil.x"})
    assert "evil" not in (await post.mail()).text
