"""What a worker does at its start and every hour, wherever the mails and rows came from."""

import pytest

from butterbase.api.auth.mail import outbox, sweep
from butterbase.api.settings import ApiSettings
from butterbase.cli import operators
from tests.api.auth.mail.conftest import ANA, Post
from tests.api.conftest import running
from tests.waiting import until

OLGA = "olga@example.com"
NEXT_WORKER = ApiSettings(auth_private_urls=True)

EXPIRED = """
    insert into auth.users (id, email) values
      ('00000000-0000-4000-8000-000000000001', 'a@example.com');
    insert into auth.sessions (user_id, created_at, not_after, refresh_nonce) values
      ('00000000-0000-4000-8000-000000000001', now() - interval '9 d', now() - interval '2 d', ''),
      ('00000000-0000-4000-8000-000000000001', now() - interval '9 d', now() - interval '1 h', ''),
      ('00000000-0000-4000-8000-000000000001', now() - interval '9 d', null, '');
    insert into auth.flow_state (provider, expires_at) values
      ('google', now() - interval '2 h'), ('google', now() + interval '5 min');
    insert into auth.rate_limits (key, tat) values
      ('old', now() - interval '2 d'), ('new', now() + interval '1 min');
    insert into auth.one_time_tokens (user_id, kind, relates_to, requester, expires_at) values
      ('00000000-0000-4000-8000-000000000001', 'recovery', 'a', 'x', now() - interval '8 d'),
      ('00000000-0000-4000-8000-000000000001', 'magiclink', 'a', 'x', now() + interval '1 h');
"""
LEFT = """
    select (select count(*) from auth.sessions), (select count(*) from auth.flow_state),
      (select count(*) from auth.one_time_tokens),
      (select string_agg(key, ',') from auth.rate_limits where key in ('old', 'new'))
"""


async def test_an_operators_mail_is_not_lost_with_its_worker(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = await operators.create(post.api.installation.cluster, OLGA)
    client, credentials = post.api.client, {"email": OLGA, "password": password}
    path = "/operators/auth/v1"
    session = (await client.post(f"{path}/token?grant_type=password", json=credentials)).json()
    answer = await client.put(
        f"{path}/admin/settings",
        json={"mail": {"smtp": {"host": "127.0.0.1", "port": post.server.port, "tls": "none"}}},
        headers={"Authorization": f"Bearer {session['access_token']}"},
    )
    assert answer.status_code == 200, answer.text
    with monkeypatch.context() as crashing:
        crashing.setattr(outbox.Outbox, "kick", lambda _: None)
        await client.post(f"{path}/recover", json={"email": OLGA})
    assert post.server.mails == []
    async with running(post.api.installation, NEXT_WORKER):
        assert (await post.mail()).recipient == OLGA


async def test_a_worker_that_lives_sends_what_another_left(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "INTERVAL_S", 0.05)
    async with running(post.api.installation, NEXT_WORKER):
        with monkeypatch.context() as crashing:
            crashing.setattr(outbox.Outbox, "kick", lambda _: None)
            await post.ask("otp", {"email": ANA})
        assert (await post.mail()).recipient == ANA


async def test_what_has_expired_is_dropped(post: Post) -> None:
    post.sql(EXPIRED)

    async def is_dropped() -> bool:
        return post.sql(LEFT) == [(2, 1, 1, "new")]

    async with running(post.api.installation, NEXT_WORKER):
        await until(is_dropped)


async def test_a_session_over_by_the_apps_limits_is_dropped(post: Post) -> None:
    post.sql(EXPIRED)
    await post.configure(sessions={"timebox_s": 86400})

    async def is_dropped() -> bool:
        return post.sql(LEFT) == [(0, 1, 1, "new")]

    async with running(post.api.installation, NEXT_WORKER):
        await until(is_dropped)
