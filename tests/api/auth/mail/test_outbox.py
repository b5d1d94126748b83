"""Mail on its way: none is lost, none delays an answer, and without a server all are kept."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from butterbase.api.auth.config import AuthConfig, Smtp
from butterbase.api.auth.mail import outbox
from butterbase.api.auth.mail.errors import MailUnavailableError
from butterbase.api.auth.mail.message import Letter, Mail
from butterbase.api.auth.mail.outbox import AGE_S_MAX, PAUSE_S_MAX, pause_after
from butterbase.api.auth.mail.smtp import SmtpMailer
from butterbase.api.auth.mail.templates import Rendered
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import app_service
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor
from tests.api.auth.mail.conftest import ANA, PASSWORD, MailServer, Post
from tests.api.conftest import Api, running
from tests.installation import MASTER_KEY, Installation
from tests.serving import tcp_server
from tests.waiting import until

EVA = "eva@example.com"
NEXT_WORKER = ApiSettings(auth_private_urls=True)


async def test_without_a_server_mails_are_kept_to_be_read(api: Api) -> None:
    await api.client.post("/auth/v1/otp", json={"email": ANA}, headers=api.anon)
    answer = await api.client.get("/auth/v1/admin/outbox", headers=api.service)
    (mail,) = answer.json()["mails"]
    assert (mail["recipient"], mail["kind"], mail["sent_at"]) == (ANA, "magic_link", None)
    assert "/auth/v1/verify?token=" in mail["text"]
    assert mail["text"].split("token=")[1].split("&")[0] in mail["html"]
    code = mail["text"].split("code: ")[1].split()[0]
    session = await api.client.post(
        "/auth/v1/verify", json={"type": "email", "email": ANA, "token": code}, headers=api.anon
    )
    assert session.json()["user"]["email"] == ANA


async def test_the_outbox_is_for_the_service_role(api: Api) -> None:
    member = await api.sign_up(ANA)
    for headers in (api.anon, member):
        answer = await api.client.get("/auth/v1/admin/outbox", headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "not_admin")


async def test_without_a_server_addresses_need_no_confirmation(api: Api) -> None:
    answer = await api.client.post(
        "/auth/v1/signup", json={"email": ANA, "password": PASSWORD}, headers=api.anon
    )
    assert "access_token" in answer.json()
    assert (await settings_of(api))["mailer_autoconfirm"] is True


@pytest.mark.parametrize("is_autoconfirmed", [True, False])
async def test_whether_addresses_are_confirmed_can_be_set(
    post: Post, is_autoconfirmed: bool
) -> None:
    assert (await settings_of(post.api))["mailer_autoconfirm"] is False
    await post.configure(mail={"is_autoconfirmed": is_autoconfirmed})
    answer = await post.ask("signup", {"email": ANA, "password": PASSWORD})
    assert ("access_token" in answer.json()) is is_autoconfirmed


async def settings_of(api: Api) -> dict[str, Any]:
    answer = await api.client.get("/auth/v1/settings", headers=api.anon)
    return dict(answer.json())


async def test_a_mail_that_was_not_taken_is_sent_later(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAUSE_S_MIN", 0.05)
    post.server.replies = ["451 not now", "421 nor now"]
    assert (await post.ask("otp", {"email": ANA})).status_code == 200
    assert (await post.mail()).recipient == ANA
    assert post.server.try_count == 3
    await until(lambda: post.sql("select id from auth.mail_outbox where sent_at is null") == [])
    assert post.sql("select attempts, error, sealed from auth.mail_outbox") == [(3, None, None)]


async def test_a_mail_that_is_refused_is_given_up_and_stops_no_other(post: Post) -> None:
    post.server.replies = ["554 we do not like it"]
    await post.ask("otp", {"email": ANA})
    await until(lambda: bool(post.sql("select id from auth.mail_outbox where sealed is null")))
    ((error, next_attempt_at),) = post.sql(
        "select error, next_attempt_at::text from auth.mail_outbox"
    )
    assert "554" in error
    assert next_attempt_at == "infinity"
    await post.ask("otp", {"email": EVA})
    assert (await post.mail()).recipient == EVA


async def test_no_answer_waits_for_a_mail_server(post: Post) -> None:
    """One that takes connections and says nothing."""
    connections: list[asyncio.StreamWriter] = []
    connected, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        connected.set()
        await ended.wait()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    await post.configure(mail={"smtp": {"port": port}})
    assert (await post.ask("otp", {"email": ANA})).status_code == 200
    await connected.wait()
    assert (await post.ask("otp", {"email": EVA})).status_code == 200
    silent.close()
    ended.set()
    for writer in connections:
        writer.close()
        await writer.wait_closed()


async def test_a_crash_between_commit_and_sending_loses_no_mail(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crashing:
        crashing.setattr(outbox.Outbox, "kick", lambda _: None)
        await post.ask("otp", {"email": ANA})
    assert post.server.mails == []
    async with running(post.api.installation, NEXT_WORKER):
        assert (await post.mail()).recipient == ANA


async def test_a_crash_while_sending_loses_no_mail(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that died has claimed the mail; it is another's to send when that has expired."""
    with monkeypatch.context() as crashing:
        crashing.setattr(outbox.Outbox, "kick", lambda _: None)
        await post.ask("otp", {"email": ANA})
    post.sql("select auth.claim_mails(now() - interval '121 s', interval '120 s', 9) from (select)")
    post.sql("update auth.mail_outbox set next_attempt_at = now() - interval '1 s', attempts = 1")
    async with running(post.api.installation, NEXT_WORKER):
        assert (await post.mail()).recipient == ANA


async def test_two_senders_do_not_take_the_same_mail(post: Post) -> None:
    claim = "select id from auth.claim_mails(now(), interval '120 s', 5)"
    post.sql(
        "insert into auth.mail_outbox (recipient, kind, sealed) select 'a@b.c', 'recovery', '' "
        "from generate_series(1, 20)"
    )
    taken = await asyncio.gather(*(asyncio.to_thread(post.sql, claim) for _ in range(6)))
    ids = [row[0] for rows in taken for row in rows]
    assert len(ids) == len(set(ids)) == 20


async def test_mails_for_many_are_all_sent(post: Post) -> None:
    await post.configure(rate_limits={"is_enabled": False})
    addresses = {f"a{number}@example.com" for number in range(23)}
    await asyncio.gather(*(post.ask("otp", {"email": address}) for address in addresses))
    assert {(await post.mail()).recipient for _ in addresses} == addresses


async def test_a_mail_that_is_too_old_is_not_sent(post: Post, mail_server: MailServer) -> None:
    mail_server.replies = ["451 not now"]
    await post.ask("otp", {"email": ANA})
    await until(lambda: mail_server.try_count == 1)
    await until(lambda: bool(post.sql("select id from auth.mail_outbox where error is not null")))
    post.sql(
        "update auth.mail_outbox set created_at = now() - %s, next_attempt_at = now()",
        timedelta(seconds=AGE_S_MAX + 1),
    )
    await post.ask("otp", {"email": EVA})
    assert (await post.mail()).recipient == EVA
    await until(
        lambda: bool(post.sql("select id from auth.mail_outbox where next_attempt_at = 'infinity'"))
    )
    assert mail_server.try_count == 2


def test_pauses_grow_up_to_a_limit() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, 200)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_S_MAX


async def test_an_app_sends_its_mails_by_its_own_function(post: Post) -> None:
    post.api.installation.as_owner(
        """
        create table public.mails (event jsonb);
        create function public.send_mail(event jsonb) returns jsonb
        language sql security definer set search_path = '' as $$
          insert into public.mails values (event) returning '{}'::jsonb
        $$;
        """
    )
    await post.configure(hooks={"send_email": "public.send_mail"})
    await post.ask("otp", {"email": ANA})
    await until(lambda: bool(post.sql("select event from public.mails")))
    ((event,),) = post.sql("select event from public.mails")
    assert event["user"]["email"] == event["email_data"]["recipient"] == ANA
    assert event["email_data"]["email_action_type"] == "magiclink"
    token_hash = event["email_data"]["token_hash"]
    assert (await post.verify(type="email", token_hash=token_hash)).status_code == 200
    assert post.server.mails == []


@pytest.mark.parametrize(
    "mail",
    [
        {"templates": {"newsletter": {"subject": "x"}}},
        {"templates": {"recovery": {"html": "{{ if .Token }}"}}},
        {"templates": {"recovery": {"subject": "{{ .Nobody }}"}}},
        {"smtp": {"host": "mail.example", "sender": "no address"}},
        {"smtp": {"host": "mail.example", "sender": "a@b.c\r\nBcc: x@y.z"}},
        {"smtp": {"host": "mail.example", "tls": "perhaps"}},
    ],
)
async def test_settings_that_no_mail_can_be_sent_by_are_refused(
    api: Api, mail: dict[str, Any]
) -> None:
    answer = await api.client.put(
        "/auth/v1/admin/settings", json={"mail": mail}, headers=api.service
    )
    assert answer.status_code == 400
    assert answer.json()["error_code"] in ("validation_failed", "email_address_invalid")


async def test_the_servers_password_is_sealed_and_told_to_nobody(post: Post) -> None:
    await post.configure(mail={"smtp": {"username": "app", "password": "hunter22"}})
    ((stored,),) = post.sql("select config::text from auth.settings")
    answer = await post.api.client.get("/auth/v1/admin/settings", headers=post.api.service)
    assert "hunter22" not in stored + answer.text


async def test_credentials_do_not_go_over_a_connection_without_tls(post: Post) -> None:
    await post.configure(
        mail={"smtp": {"username": "app", "password": "hunter22", "tls": "starttls"}}
    )
    await post.ask("otp", {"email": ANA})
    await until(lambda: bool(post.sql("select id from auth.mail_outbox where error is not null")))
    ((error,),) = post.sql("select error from auth.mail_outbox")
    assert "STARTTLS" in error
    assert post.server.try_count == 0


async def test_a_mail_server_of_this_machine_is_the_operators_to_allow(
    mail_server: MailServer, installation: Installation
) -> None:
    """An app's administrator would look around in the network with it."""
    async with running(installation, ApiSettings(auth_private_urls=False)) as api:
        post = Post(api, mail_server)
        for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1"):
            smtp = Smtp(host, mail_server.port, tls="none")
            mailer = SmtpMailer(smtp, is_private_allowed=False)
            with pytest.raises(MailUnavailableError, match="not a public address"):
                await mailer.send(Mail("1", ANA, Letter("x", Rendered("s", "t", None), {})))
        smtp_settings = {"host": "localhost", "port": mail_server.port, "tls": "none"}
        await post.configure(mail={"smtp": smtp_settings})
        await post.ask("otp", {"email": ANA})
        await until(
            lambda: bool(post.sql("select id from auth.mail_outbox where error is not null"))
        )
        ((error,),) = post.sql("select error from auth.mail_outbox")
        assert "not a public address" in error
        assert mail_server.try_count == 0


@pytest.mark.parametrize("greeting", [b"554 secret 1.2.3\r\n", b"SSH-2.0-secret\r\n"])
async def test_what_is_no_mail_server_is_not_told(greeting: bytes) -> None:
    """What listens there says what it is; whoever reads the outbox is not to learn it."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with tcp_server(greet) as port:
        mailer = SmtpMailer(Smtp("127.0.0.1", port, tls="none"), is_private_allowed=True)
        with pytest.raises(MailUnavailableError) as refused:
            await mailer.send(Mail("1", ANA, Letter("x", Rendered("s", "t", None), {})))
    assert "secret" not in str(refused.value)


def test_an_app_without_settings_has_no_mail_server() -> None:
    assert AuthConfig().mail.smtp is None


async def test_what_happens_to_one_mail_stops_no_other(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as held:
        held.setattr(outbox.Outbox, "kick", lambda _: None)
        for address in (EVA, ANA):
            await post.ask("otp", {"email": address})
    is_broken = asyncio.Event()

    class Mailer:
        async def send(self, mail: Mail) -> None:
            if mail.recipient == EVA:
                is_broken.set()
                raise DatabaseUnavailableError("the function that sends mails is away")
            await is_broken.wait()
            await asyncio.sleep(0)  # what becomes of the other is known by now

    async def config() -> AuthConfig:
        return AuthConfig()

    installation = post.api.installation
    dsn = installation.cluster.dsn(app_service("main"), installation.main.name)
    service, mailer = Executor(dsn), Mailer()
    own = outbox.Outbox("main", service, MASTER_KEY, config, lambda _: mailer)
    own.kick()
    sent = "select recipient, sent_at is not null from auth.mail_outbox order by 1"
    await until(lambda: own._task is None)
    assert post.sql(sent) == [(ANA, True), (EVA, False)]
    assert "has stopped" not in caplog.text
    await own.close()
    await service.close()
