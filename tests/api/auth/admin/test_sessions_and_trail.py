"""A user's sessions and factors as administrators see them, and the trail."""

import pytest

from tests.api.auth.admin.conftest import (
    ANA,
    NOBODY,
    call,
    create,
    modify,
    refresh,
    refused,
    sign_in,
)
from tests.api.conftest import Api


async def test_sessions_are_listed_and_ended_one_by_one(api: Api) -> None:
    made = await create(api, **ANA, email_confirm=True)
    kept, ended = (await sign_in(api, **ANA)).json(), (await sign_in(api, **ANA)).json()
    path = f"admin/users/{made['id']}/sessions"
    listed = (await call(api, "GET", path)).json()["sessions"]
    assert len(listed) == 2
    assert not {"refresh_nonce", "refresh_counter"} & set(listed[0])
    assert (listed[0]["aal"], listed[0]["ip"]) == ("aal1", "127.0.0.1")
    gone = await call(api, "DELETE", f"{path}/{listed[0]['id']}")
    assert gone.status_code == 204
    assert (await refresh(api, ended)).status_code == 400
    assert (await refresh(api, kept)).status_code == 200
    again = await call(api, "DELETE", f"{path}/{listed[0]['id']}")
    assert refused(again) == (404, "session_not_found")


@pytest.mark.parametrize(("method", "path"), [("DELETE", "sessions"), ("POST", "logout")])
async def test_all_sessions_of_a_user_are_ended(api: Api, method: str, path: str) -> None:
    made = await create(api, **ANA, email_confirm=True)
    session = (await sign_in(api, **ANA)).json()
    other = await api.sign_up("bob@example.com")
    answer = await call(api, method, f"admin/users/{made['id']}/{path}")
    assert answer.status_code == 204
    assert (await refresh(api, session)).status_code == 400
    assert (await call(api, "GET", "user", headers=other)).status_code == 200


async def test_factors_are_listed_renamed_and_removed(api: Api) -> None:
    user = await api.sign_up("ana@example.com")
    me = (await call(api, "GET", "user", headers=user)).json()
    for name in ("phone", "tablet"):
        body = {"factor_type": "totp", "friendly_name": name}
        assert (await call(api, "POST", "factors", body, user)).status_code == 200
    path = f"admin/users/{me['id']}/factors"
    phone, _ = listed = (await call(api, "GET", path)).json()
    assert [factor["friendly_name"] for factor in listed] == ["phone", "tablet"]
    renamed = await call(api, "PUT", f"{path}/{phone['id']}", {"friendly_name": "old phone"})
    assert (renamed.status_code, renamed.json()["friendly_name"]) == (200, "old phone")
    taken = await call(api, "PUT", f"{path}/{phone['id']}", {"friendly_name": "tablet"})
    assert refused(taken) == (422, "mfa_factor_name_conflict")
    removed = await call(api, "DELETE", f"{path}/{phone['id']}")
    assert (removed.status_code, removed.json()["id"]) == (200, phone["id"])
    for method in ("PUT", "DELETE"):
        answer = await call(api, method, f"{path}/{phone['id']}", {})
        assert refused(answer) == (404, "mfa_factor_not_found")
    assert len((await call(api, "GET", path)).json()) == 1


async def test_the_trail_tells_what_was_done_and_no_secrets(api: Api) -> None:
    made = await create(api, **ANA)
    await modify(api, made, password="another horse", ban_duration="1h")
    await call(api, "DELETE", f"admin/users/{made['id']}")
    trail = await call(api, "GET", "admin/audit?per_page=50")
    actions = [entry["payload"]["action"] for entry in trail.json()]
    assert actions == ["user_deleted", "user_banned", "user_signedup"]
    assert trail.headers["X-Total-Count"] == "3"
    assert trail.json()[1]["payload"]["traits"]["changed"] == ["banned_until_s", "password_hash"]
    assert "horse" not in trail.text
    assert "argon2" not in trail.text
    assert trail.json()[0]["ip_address"] == "127.0.0.1"


async def test_the_trail_is_searched(api: Api) -> None:
    await create(api, **ANA)
    await create(api, email="bob@example.com")
    for query, count in (
        ("author:ana", 1),
        ("action:SIGNED", 2),
        ("type:team", 2),
        ("type:factor", 0),
        ("author:%", 0),
    ):
        answer = await call(api, "GET", f"admin/audit?query={query}")
        assert len(answer.json()) == count, query
    answer = await call(api, "GET", "admin/audit?query=secret:x")
    assert refused(answer) == (400, "validation_failed")


async def test_a_failed_change_leaves_nothing_in_the_trail(api: Api) -> None:
    made = await create(api, **ANA)
    await call(api, "DELETE", f"admin/users/{made['id']}/sessions/{NOBODY}")
    await call(api, "POST", "admin/users", ANA)
    assert len((await call(api, "GET", "admin/audit")).json()) == 1
