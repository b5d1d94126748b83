"""What of a request reaches the process that runs functions, and as whom."""

from types import SimpleNamespace
from typing import Any

import pytest

from butterbase.api.functions import gates
from butterbase.api.functions.client import FunctionsClient, Target
from butterbase.api.functions.runtime.model import CallRequest
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.store import Gate
from butterbase.api.settings import ApiSettings
from tests.api.conftest import Api, running
from tests.functions.test_deploy import deployed, make_key
from tests.installation import Installation


class Relayed:
    """In the place of the way to that process."""

    def __init__(self) -> None:
        self.calls: list[tuple[Target, CallRequest]] = []

    async def relay(
        self,
        target: Target,
        request: CallRequest,
        _receive: Any,
        send: Any,
        *,
        added: list[tuple[bytes, bytes]],
        **_: Any,
    ) -> None:
        self.calls.append((target, request))
        await send({"type": "http.response.start", "status": 204, "headers": added})
        await send({"type": "http.response.body", "body": b""})

    @property
    def last(self) -> CallRequest:
        return self.calls[-1][1]


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> Relayed:
    found = Relayed()

    async def relay(_self: object, *arguments: Any, **named: Any) -> None:
        await found.relay(*arguments, **named)

    monkeypatch.setattr(FunctionsClient, "relay", relay)
    return found


async def test_the_function_sees_its_own_path(api: Api, relayed: Relayed) -> None:
    await deployed(api)
    for path in ("/functions/v1/hello", "/v1/main/functions/v1/hello", "/v1/main/fn/hello"):
        answer = await api.client.get(f"{path}/a%2Fb/c?x=1&y=%20", headers=api.anon)
        assert answer.status_code == 204
        assert relayed.last.url.endswith("/hello/a%2Fb/c?x=1&y=%20")
        assert "/v1" not in relayed.last.url
    assert {(target.app_id, target.name) for target, _ in relayed.calls} == {("main", "hello")}


@pytest.mark.parametrize("is_trusted", [False, True])
async def test_a_page_of_a_function_is_no_page_of_ours(
    installation: Installation, relayed: Relayed, is_trusted: bool
) -> None:
    settings = FunctionsSettings(functions_trusted_pages=is_trusted)
    async with running(installation, ApiSettings(), functions=settings) as api:
        await deployed(api)
        answer = await api.client.get("/functions/v1/hello", headers=api.anon)
    policy = answer.headers.get("content-security-policy", "")
    assert policy.startswith("sandbox ") is not is_trusted
    assert "allow-same-origin" not in policy


async def test_nobody_but_us_says_what_a_call_is(api: Api, relayed: Relayed) -> None:
    await deployed(api)
    spoofed = {
        "X-Butterbase-Trigger": "database",
        "X-Butterbase-Invocation": "x",
        "Connection": "keep-alive, X-Mine",
        "X-Mine": "kept",
        "Cookie": "a=b",
    }
    await api.client.get("/functions/v1/hello", headers=api.anon | spoofed)
    names = {name.lower() for name, _ in relayed.last.headers}
    assert {"cookie", "x-mine", "apikey"} <= names
    assert not {"x-butterbase-trigger", "x-butterbase-invocation", "connection"} & names
    assert relayed.last.context.trigger == "http"


async def test_a_user_is_told_and_a_key_is_nobody(api: Api, relayed: Relayed) -> None:
    await deployed(api)
    user = await api.sign_up("a@example.com")
    await api.client.post("/functions/v1/hello", headers=user)
    context = relayed.last.context
    assert context.user is not None
    assert context.user["email"] == "a@example.com"
    assert context.token == user["Authorization"].removeprefix("Bearer ")
    for headers in (api.anon, api.service, await make_key(api, "functions")):
        await api.client.post("/functions/v1/hello", headers=headers)
        assert relayed.last.context.user is None
        assert relayed.last.context.token == headers["apikey"]
    key = await make_key(api, "data")
    answer = await api.client.post("/functions/v1/hello", headers=key)
    assert answer.status_code == 403


async def test_who_is_not_verified_brings_no_token_along(api: Api, relayed: Relayed) -> None:
    await deployed(api, verify_jwt=False)
    for headers in ({}, {"Authorization": "Bearer whsec_x"}, {"Authorization": "Basic eDp5"}):
        answer = await api.client.post("/functions/v1/hello", headers=headers)
        assert answer.status_code == 204
        context = relayed.last.context
        assert (context.user, context.token) == (None, None)
        sent = dict(relayed.last.headers).get("authorization")
        assert sent == headers.get("Authorization")


async def test_a_change_of_who_may_call_is_heard_of(
    api: Api, relayed: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployed(api, verify_jwt=False)
    assert (await api.client.get("/functions/v1/hello")).status_code == 204
    await deployed(api, verify_jwt=True)
    assert (await api.client.get("/functions/v1/hello")).status_code == 401
    assert (await api.client.get("/functions/v1/hello", headers=api.anon)).status_code == 204
    # What another worker has changed is heard of a moment later.
    monkeypatch.setattr(gates, "KEPT_S", 0.0)
    await api.client.patch(
        "/v1/main/functions/hello", json={"verify_jwt": False}, headers=api.service
    )
    assert (await api.client.get("/functions/v1/hello")).status_code == 204
    assert len(relayed.calls) == 3


@pytest.mark.parametrize(
    "path", ["/functions/v1/", "/functions/v1/a%00b", "/functions/v1/v1", "/v1/nope/fn/x"]
)
async def test_what_is_no_function_is_not_found(api: Api, path: str) -> None:
    answer = await api.client.get(path, headers=api.anon)
    assert answer.status_code == 404


async def test_what_is_changed_while_it_is_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, app = gates.Gates(), SimpleNamespace(id="main", service=None)
    are_closed = iter([False, True])

    async def read_gate(*_: object) -> Gate:
        gate = Gate(next(are_closed), False)
        known.forget("main", "hello")
        return gate

    monkeypatch.setattr(gates, "read_gate", read_gate)
    assert not (await known.get(app, "hello")).verify_jwt  # type: ignore[arg-type]
    assert (await known.get(app, "hello")).verify_jwt  # type: ignore[arg-type]
