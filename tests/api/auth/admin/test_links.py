"""Links that administrators make, and what opens with them."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest

from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


async def call(
    api: Api, path: str, body: Any, headers: dict[str, str] | None = None, method: str = "POST"
) -> httpx.Response:
    return await api.client.request(
        method, f"/auth/v1/{path}", json=body, headers=headers or api.service
    )


async def link(api: Api, kind: str, **body: Any) -> dict[str, Any]:
    answer = await call(
        api, "admin/generate_link", {"type": kind, "email": ANA["email"], "data": None, **body}
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def verify(api: Api, **body: Any) -> httpx.Response:
    return await call(api, "verify", body, api.anon)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


def mails(api: Api) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.installation.main.dsn) as conn:
        return conn.execute("select recipient, kind from auth.mail_outbox").fetchall()


@pytest.fixture
async def ana(api: Api) -> dict[str, Any]:
    """A confirmed user."""
    answer = await call(api, "admin/users", {**ANA, "email_confirm": True})
    return dict(answer.json())


async def test_a_link_to_sign_up_makes_the_user_and_confirms_it(api: Api) -> None:
    made = await link(api, "signup", password=ANA["password"], data={"name": "Ana"})
    assert (made["verification_type"], made["user_metadata"]) == ("signup", {"name": "Ana"})
    assert made["confirmation_sent_at"]
    assert "email_confirmed_at" not in made
    opened = await verify(api, type="signup", token_hash=made["hashed_token"])
    assert opened.status_code == 200
    assert opened.json()["user"]["email_confirmed_at"]
    signed_in = await call(api, "token?grant_type=password", ANA, api.anon)
    assert signed_in.status_code == 200
    assert mails(api) == []


async def test_the_code_opens_what_the_link_does(api: Api, ana: dict[str, Any]) -> None:
    made = await link(api, "magiclink")
    assert (made["id"], made["verification_type"]) == (ana["id"], "magiclink")
    opened = await verify(api, type="email", email=ANA["email"], token=made["email_otp"])
    assert (opened.status_code, opened.json()["user"]["id"]) == (200, ana["id"])
    again = await verify(api, type="magiclink", token_hash=made["hashed_token"])
    assert refused(again) == (403, "otp_expired")


async def test_the_action_link_leads_back_with_a_session(api: Api, ana: dict[str, Any]) -> None:
    made = await link(api, "recovery", redirect_to="http://127.0.0.1:3000/new-password")
    assert made["redirect_to"] == "http://127.0.0.1:3000/new-password"
    action = urlsplit(made["action_link"])
    assert parse_qs(action.query) == {
        "token": [made["hashed_token"]],
        "type": ["recovery"],
        "redirect_to": [made["redirect_to"]],
    }
    opened = await api.client.get(f"{action.path}?{action.query}")
    assert opened.status_code == 303
    target = urlsplit(opened.headers["Location"])
    assert target.path == "/new-password"
    assert "access_token" in parse_qs(target.fragment)
    assert not target.query


@pytest.mark.parametrize("where", ["query", "body"])
async def test_a_link_leads_only_where_it_may(api: Api, ana: dict[str, Any], where: str) -> None:
    evil = "https://evil.example/"
    body = {"type": "magiclink", "email": ANA["email"]}
    path = "admin/generate_link"
    if where == "query":
        path += f"?redirect_to={evil}"
    else:
        body["redirect_to"] = evil
    made = (await call(api, path, body)).json()
    assert "evil" not in made["redirect_to"]
    assert "evil" not in made["action_link"]


async def test_a_magic_link_for_nobody_is_one_to_sign_up(api: Api) -> None:
    made = await link(api, "magiclink", password=None, new_email=None)
    assert made["verification_type"] == "signup"
    opened = await verify(api, type="signup", token_hash=made["hashed_token"])
    assert (opened.status_code, opened.json()["user"]["id"]) == (200, made["id"])


async def test_an_invitation_makes_the_user_and_is_mailed(api: Api) -> None:
    answer = await call(api, "invite", {"email": "Ana@example.com", "data": {"team": "x"}})
    invited = answer.json()
    assert (answer.status_code, invited["email"]) == (200, ANA["email"])
    assert invited["invited_at"]
    assert invited["user_metadata"] == {"team": "x"}
    assert not {"action_link", "email_otp", "hashed_token"} & set(invited)
    assert mails(api) == [("ana@example.com", "invite")]
    again = await call(api, "invite", {"email": ANA["email"], "data": None})
    assert (again.status_code, again.json()["id"]) == (200, invited["id"])


async def test_an_invitation_by_link_is_accepted_once(api: Api) -> None:
    made = await link(api, "invite")
    opened = await verify(api, type="invite", token_hash=made["hashed_token"])
    assert (opened.status_code, opened.json()["user"]["id"]) == (200, made["id"])
    for path, body in (
        ("invite", {"email": ANA["email"]}),
        ("admin/generate_link", {"type": "invite", "email": ANA["email"]}),
        ("admin/generate_link", {"type": "signup", "email": ANA["email"], "password": "long one"}),
    ):
        assert refused(await call(api, path, body)) == (422, "email_exists")


async def test_an_address_changes_when_both_have_confirmed(api: Api, ana: dict[str, Any]) -> None:
    at_new = await link(api, "email_change_new", new_email="new@example.com")
    at_old = await link(api, "email_change_current", new_email="new@example.com")
    assert at_old["new_email"] == "new@example.com"
    half = await verify(api, type="email_change", token_hash=at_new["hashed_token"])
    assert half.status_code == 200
    assert "access_token" not in half.json()
    done = await verify(api, type="email_change", token_hash=at_old["hashed_token"])
    assert (done.status_code, done.json()["user"]["email"]) == (200, "new@example.com")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"type": "recovery", "email": "nobody@x.yz"}, 404, "user_not_found"),
        (
            {"type": "email_change_new", "email": "nobody@x.yz", "new_email": "b@x.yz"},
            404,
            "user_not_found",
        ),
        ({"type": "signup", "email": "nobody@x.yz"}, 400, "validation_failed"),
        ({"type": "signup", "email": "nobody@x.yz", "password": "short"}, 422, "weak_password"),
        ({"type": "signup", **ANA}, 422, "email_exists"),
        ({"type": "sms", "email": ANA["email"]}, 400, "validation_failed"),
        ({"type": "magiclink", "email": "none"}, 400, "email_address_invalid"),
        ({"type": "email_change_new", "email": ANA["email"]}, 400, "email_address_invalid"),
        (
            {"type": "email_change_new", "email": ANA["email"], "new_email": ANA["email"]},
            422,
            "email_exists",
        ),
    ],
)
@pytest.mark.usefixtures("ana")
async def test_what_cannot_be_linked_is_refused(
    api: Api, body: Any, status: int, code: str
) -> None:
    answer = await call(api, "admin/generate_link", body)
    assert refused(answer) == (status, code)
