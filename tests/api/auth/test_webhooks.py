"""Hooks at a URL: what they are sent, what their answers do, and where no request goes."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import falcon
import falcon.asgi
import jwt
import pytest
from falcon.asgi import Request, Response

from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.webhooks import key_of, signature
from butterbase.api.settings import ApiSettings
from tests.api.conftest import Api, running
from tests.installation import Installation
from tests.serving import serving
from tests.waiting import until

SECRET = "v1,whsec_" + base64.b64encode(bytes(range(32))).decode()
ANA = {"email": "ana@example.com", "password": "correct horse"}


@dataclass
class Developer:
    """Who answers hooks."""

    url: str = ""
    status: int = 200
    answer: Any = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.stream.read()
        key = bytes(range(32))
        message_id, sent_at = req.get_header("webhook-id"), req.get_header("webhook-timestamp")
        assert message_id is not None
        assert sent_at is not None
        expected = signature(key, message_id, int(sent_at), body)
        assert req.get_header("webhook-signature") == expected
        self.events.append(json.loads(body))
        resp.status = self.status
        if self.answer is not None:
            resp.media = self.answer


@pytest.fixture
async def developer() -> AsyncIterator[Developer]:
    developer = Developer()
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/hook", developer)
    async with serving(app) as url:
        developer.url = f"{url}/hook"
        yield developer


@pytest.fixture
async def api(installation: Installation) -> AsyncIterator[Api]:
    async with running(installation, ApiSettings(auth_private_urls=True)) as api:
        yield api


async def configure(api: Api, **hooks: Any) -> int:
    answer = await api.client.put(
        "/auth/v1/admin/settings", json={"hooks": {"secret": SECRET, **hooks}}, headers=api.service
    )
    return answer.status_code


async def sign_up(api: Api) -> tuple[int, dict[str, Any]]:
    answer = await api.client.post("/auth/v1/signup", json=ANA, headers=api.anon)
    return answer.status_code, answer.json()


async def test_a_url_decides_who_may_sign_up(api: Api, developer: Developer) -> None:
    await configure(api, before_user_created=developer.url)
    developer.status = 403
    developer.answer = {"error": {"http_code": 403, "message": "not you"}}
    status, error = await sign_up(api)
    assert (status, error["error_code"], error["msg"]) == (403, "hook_refused", "not you")
    assert developer.events[0]["user"]["email"] == ANA["email"]
    developer.status, developer.answer = 204, None
    assert (await sign_up(api))[0] == 200


async def test_a_url_adds_claims_but_cannot_say_whose_they_are(
    api: Api, developer: Developer
) -> None:
    await configure(api, custom_access_token=developer.url)
    developer.answer = {"claims": {"plan": "gold", "role": "authenticated", "sub": "somebody"}}
    _, session = await sign_up(api)
    claims = jwt.decode(session["access_token"], options={"verify_signature": False})
    assert (claims["plan"], claims["sub"]) == ("gold", session["user"]["id"])


async def test_a_url_sends_mails_and_is_asked_again_when_it_fails(
    api: Api, developer: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.api.auth.mail.outbox.PAUSE_S_MIN", 0.05)
    await sign_up(api)
    await configure(api, send_email=developer.url)
    developer.status = 503
    await api.client.post("/auth/v1/recover", json={"email": ANA["email"]}, headers=api.anon)
    await until(lambda: len(developer.events) == 2)
    developer.status = 200
    await until(lambda: len(developer.events) >= 3)
    event = developer.events[-1]
    assert event["user"]["email"] == event["email_data"]["recipient"] == ANA["email"]
    assert event["email_data"]["email_action_type"] == "recovery"


@pytest.mark.parametrize(("status", "answer"), [(500, {}), (302, {}), (200, []), (404, None)])
async def test_a_url_that_fails_lets_nobody_in(
    api: Api, developer: Developer, status: int, answer: Any
) -> None:
    await configure(api, before_user_created=developer.url)
    developer.status, developer.answer = status, answer
    refused, error = await sign_up(api)
    assert (refused, error["error_code"]) == (500, "unexpected_failure")
    assert developer.url not in error["msg"]


async def test_no_request_goes_into_our_own_network(
    installation: Installation, developer: Developer
) -> None:
    async with running(installation, ApiSettings()) as api:
        for url in (developer.url, developer.url.replace("http:", "https:")):
            await configure(api, before_user_created=url)
            assert (await sign_up(api))[0] == 500
    assert developer.events == []


async def test_a_url_needs_a_secret_which_is_told_to_nobody(api: Api, developer: Developer) -> None:
    assert await configure(api, before_user_created=developer.url, secret=None) == 400
    assert await configure(api, secret="whsec_c2hvcnQ=") == 400
    assert await configure(api, secret=SECRET) == 200
    shown = await api.client.get("/auth/v1/admin/settings", headers=api.service)
    assert SECRET not in shown.text


def test_a_signature_is_as_the_standard_has_it() -> None:
    # The example of its reference libraries.
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_?", "v1,whsec_c2hvcnQ="])
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(InvalidAuthBodyError):
        key_of(secret)
