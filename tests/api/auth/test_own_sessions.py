"""A user's own sessions, listed and ended one by one."""

from typing import Any

from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


async def sign_in(api: Api) -> dict[str, Any]:
    answer = await api.client.post("/auth/v1/token?grant_type=password", json=ANA, headers=api.anon)
    return dict(answer.json())


def headers(api: Api, session: dict[str, Any]) -> dict[str, str]:
    return api.anon | {"Authorization": f"Bearer {session['access_token']}"}


async def test_a_user_ends_a_session_that_is_lost(api: Api) -> None:
    await api.sign_up(ANA["email"], ANA["password"])
    lost, here = await sign_in(api), await sign_in(api)
    answer = await api.client.get("/auth/v1/user/sessions", headers=headers(api, here))
    listed = answer.json()
    assert len(listed["sessions"]) == 3
    assert listed["sessions"][0]["id"] == listed["current"]
    assert "refresh_nonce" not in answer.text
    path = f"/auth/v1/user/sessions/{listed['sessions'][1]['id']}"
    assert (await api.client.delete(path, headers=headers(api, here))).status_code == 204
    gone = await api.client.get("/auth/v1/user", headers=headers(api, lost))
    assert (gone.status_code, gone.json()["error_code"]) == (403, "session_not_found")
    again = await api.client.delete(path, headers=headers(api, here))
    assert (again.status_code, again.json()["error_code"]) == (404, "session_not_found")


async def test_nobody_ends_anothers_session(api: Api) -> None:
    ana = await api.sign_up(ANA["email"], ANA["password"])
    bob = await api.sign_up("bob@example.com")
    listed = (await api.client.get("/auth/v1/user/sessions", headers=ana)).json()
    assert len(listed["sessions"]) == 1
    path = f"/auth/v1/user/sessions/{listed['current']}"
    assert (await api.client.delete(path, headers=bob)).status_code == 404
    assert (await api.client.get("/auth/v1/user", headers=ana)).status_code == 200
    for nobody in (api.anon, api.service):
        answer = await api.client.get("/auth/v1/user/sessions", headers=nobody)
        assert answer.status_code == 401
