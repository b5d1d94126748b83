"""Who is an administrator, and what an app key with the scope admin may not."""

import pytest

from tests.api.auth.admin.conftest import ANA, NOBODY, call, create, refused
from tests.api.conftest import Api


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "admin/users"),
        ("POST", "admin/users"),
        ("GET", f"admin/users/{NOBODY}"),
        ("PUT", f"admin/users/{NOBODY}"),
        ("DELETE", f"admin/users/{NOBODY}"),
        ("GET", f"admin/users/{NOBODY}/factors"),
        ("PUT", f"admin/users/{NOBODY}/factors/{NOBODY}"),
        ("DELETE", f"admin/users/{NOBODY}/factors/{NOBODY}"),
        ("GET", f"admin/users/{NOBODY}/sessions"),
        ("DELETE", f"admin/users/{NOBODY}/sessions"),
        ("DELETE", f"admin/users/{NOBODY}/sessions/{NOBODY}"),
        ("POST", f"admin/users/{NOBODY}/logout"),
        ("GET", "admin/audit"),
        ("POST", "admin/generate_link"),
        ("POST", "invite"),
    ],
)
async def test_nobody_else_is_an_administrator(api: Api, method: str, path: str) -> None:
    user = await api.sign_up("ana@example.com")
    for headers in (api.anon, user):
        answer = await call(api, method, path, {}, headers)
        assert refused(answer) == (403, "not_admin")
        assert answer.json()["msg"] == "User not allowed"


async def test_an_app_key_with_the_scope_admin_is_an_administrator(api: Api) -> None:
    body = {"name": "backend", "scopes": ["admin"]}
    key = (await api.client.post("/keys", json=body, headers=api.service)).json()["key"]
    answer = await call(api, "GET", "admin/users", headers={"apikey": key})
    assert (answer.status_code, answer.json()["users"]) == (200, [])
    body["scopes"] = ["data", "ai", "functions"]
    key = (await api.client.post("/keys", json=body, headers=api.service)).json()["key"]
    answer = await call(api, "GET", "admin/users", headers={"apikey": key})
    assert refused(answer) == (403, "insufficient_scope")


async def test_an_app_key_makes_nobody_a_service_role(api: Api) -> None:
    body = {"name": "backend", "scopes": ["admin"]}
    key = (await api.client.post("/keys", json=body, headers=api.service)).json()["key"]
    user = {**ANA, "email_confirm": True, "role": "service_role"}
    refusal = await call(api, "POST", "admin/users", user, {"apikey": key})
    assert refused(refusal) == (403, "not_admin")
    made = await create(api, **ANA)
    changed = await call(api, "PUT", f"admin/users/{made['id']}", user, {"apikey": key})
    assert refused(changed) == (403, "not_admin")


async def test_an_app_key_does_not_become_a_service_role_that_is_there(api: Api) -> None:
    """It sets a password, makes a link or reads a mail, and signs in as the administrator."""
    body = {"name": "backend", "scopes": ["admin"]}
    key = {"apikey": (await api.client.post("/keys", json=body, headers=api.service)).json()["key"]}
    boss = await create(api, **ANA, email_confirm=True, role="service_role")
    other = await create(api, email="ben@example.com", email_confirm=True)
    user, email = f"admin/users/{boss['id']}", ANA["email"]
    for method, path, asked in [
        ("PUT", user, {"password": "another horse"}),
        ("PUT", user, {"email": "eve@example.com"}),
        ("DELETE", user, {}),
        ("DELETE", f"{user}/factors/{NOBODY}", {}),
        ("POST", "admin/generate_link", {"type": "recovery", "email": f" {email.upper()} "}),
        ("POST", "admin/generate_link", {"type": "magiclink", "email": email}),
        ("POST", "invite", {"email": email}),
        ("PUT", "admin/settings", {"hooks": {"custom_access_token": "public.f"}}),
        ("PUT", "admin/settings", {"mail": {"smtp": {"host": "evil.example"}}}),
        ("PUT", "admin/settings", {"providers": {"x": {"client_id": "x"}}}),
    ]:
        assert refused(await call(api, method, path, asked, key)) == (403, "not_admin"), path
    for address in (email, "ben@example.com"):
        await call(api, "POST", "recover", {"email": address}, api.anon)
    mails = (await call(api, "GET", "admin/outbox", headers=key)).json()["mails"]
    assert {mail["recipient"]: mail["text"] is None for mail in mails} == {
        email: True,
        "ben@example.com": False,
    }
    mails = (await call(api, "GET", "admin/outbox")).json()["mails"]
    assert all(mail["text"] for mail in mails)
    changed = await call(api, "PUT", f"admin/users/{other['id']}", {"password": "a horse"}, key)
    assert changed.status_code == 200
    allowed = {"is_anonymous_enabled": True}
    assert (await call(api, "PUT", "admin/settings", allowed, key)).status_code == 200


async def test_an_app_key_sets_no_hook(api: Api) -> None:
    body = {"name": "backend", "scopes": ["admin"]}
    key = {"apikey": (await api.client.post("/keys", json=body, headers=api.service)).json()["key"]}
    hooks = {"hooks": {"custom_access_token": "public.f"}}
    assert refused(await call(api, "PUT", "admin/settings", hooks, key)) == (403, "not_admin")
    assert (await call(api, "PUT", "admin/settings", hooks)).status_code == 200
