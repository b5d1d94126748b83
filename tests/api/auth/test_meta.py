import jwt
import pytest

from tests.api.auth.test_auth import ANA, configure, post
from tests.api.conftest import Api

PUBLIC = ["settings", "health", ".well-known/jwks.json", ".well-known/openid-configuration"]


@pytest.mark.parametrize("path", PUBLIC)
@pytest.mark.parametrize("prefix", ["", "/v1/main"])
async def test_anyone_may_ask_without_a_key(api: Api, prefix: str, path: str) -> None:
    for headers in ({}, {"apikey": "wrong"}, {"Authorization": "Bearer expired"}):
        answer = await api.client.get(f"{prefix}/auth/v1/{path}", headers=headers)
        assert answer.status_code == 200


async def test_an_app_that_is_not_there_has_no_keys(api: Api) -> None:
    answer = await api.client.get("/v1/nobodys/auth/v1/.well-known/jwks.json")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "app_not_found")


async def test_a_client_verifies_a_session_by_the_jwks(api: Api) -> None:
    _, session = await post(api, "signup", ANA)
    answer = await api.client.get("/auth/v1/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=600"
    keys = jwt.PyJWKSet.from_dict(answer.json())
    token = session["access_token"]
    key = keys[jwt.get_unverified_header(token)["kid"]]
    discovered = (await api.client.get("/auth/v1/.well-known/openid-configuration")).json()
    claims = jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience="authenticated",
        issuer=discovered["issuer"],
    )
    assert claims["sub"] == session["user"]["id"]
    assert discovered["jwks_uri"] == f"{discovered['issuer']}/.well-known/jwks.json"


async def test_the_jwks_follows_a_rotation_on_demand(api: Api) -> None:
    url = "/auth/v1/.well-known/jwks.json"
    before = [key["kid"] for key in (await api.client.get(url)).json()["keys"]]
    _, old = await post(api, "signup", ANA)
    await configure(api, key_epoch=1)
    after = [key["kid"] for key in (await api.client.get(url)).json()["keys"]]
    assert before[-1] in after
    assert before != after
    _, new = await post(api, "token?grant_type=password", ANA)
    for session in (old, new):
        headers = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
        assert (await api.client.get("/auth/v1/user", headers=headers)).status_code == 200
    assert jwt.get_unverified_header(new["access_token"])["kid"] == before[-1]


async def test_settings_say_what_clients_can_offer(api: Api) -> None:
    await configure(
        api,
        is_anonymous_enabled=True,
        mail={"is_autoconfirmed": False},
        providers={
            "github": {"client_id": "x", "client_secret": "y"},
            "google": {"client_id": "x", "is_enabled": False},
        },
    )
    answer = await api.client.get("/auth/v1/settings")
    settings = answer.json()
    external = settings["external"]
    on = {name for name, is_enabled in external.items() if is_enabled}
    assert on == {"anonymous_users", "email", "github"}
    assert settings["mailer_autoconfirm"] is settings["disable_signup"] is False
    assert "client" not in answer.text


async def test_settings_are_the_service_roles(api: Api) -> None:
    _, session = await post(api, "signup", ANA)
    user = api.anon | {"Authorization": f"Bearer {session['access_token']}"}
    for headers in (api.anon, user):
        for method in ("GET", "PUT"):
            answer = await api.client.request(
                method, "/auth/v1/admin/settings", json={}, headers=headers
            )
            assert (answer.status_code, answer.json()["error_code"]) == (403, "not_admin")


async def test_settings_are_read_and_changed(api: Api) -> None:
    await configure(api, mail={"smtp": {"host": "mail.example.com", "password": "hunter2"}})
    answer = await api.client.get("/auth/v1/admin/settings", headers=api.service)
    assert "hunter2" not in answer.text
    assert answer.json()["mail"]["smtp"]["host"] == "mail.example.com"
    assert answer.json()["refresh_reuse_s"] == 10
    again = await api.client.put("/auth/v1/admin/settings", json=answer.json(), headers=api.service)
    assert (again.status_code, again.json()) == (200, answer.json())


async def test_a_setting_that_is_not_known_is_refused(api: Api) -> None:
    answer = await api.client.put(
        "/auth/v1/admin/settings", json={"jwt_algorithm": "none"}, headers=api.service
    )
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
