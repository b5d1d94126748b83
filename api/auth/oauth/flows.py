"""Flows to a provider and back: begun for a browser, and taken once by the same one."""

import hmac
import uuid
from typing import Final

from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.auth_codes import Challenge
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.oauth.browser import secret_hash
from butterbase.api.auth.oauth.errors import BadOAuthStateError
from butterbase.api.auth.oauth.exchange import Trip
from butterbase.api.auth.oauth.providers import Provider
from butterbase.api.auth.oauth.state import LIFE_S, FlowKey
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Statement, bytea

QUERIES: Final = load_queries("auth_oauth")


class Flow(Struct, frozen=True):
    """What was asked for when it began."""

    id: str
    provider: str
    redirect_to: str
    challenge: Challenge | None = None
    """None: the session is to come in the fragment."""
    linking: "Linking | None" = None


class Linking(Struct, frozen=True):
    """Who has asked to link an identity, and in which session: it must not end before."""

    user_id: str
    session_id: str


class Start(Struct, frozen=True):
    """A flow that still waits for its browser: it links an identity to an account."""

    id: str
    provider: str
    is_pkce: bool
    account: str
    """The account's address."""


def flow_key(app: AppRuntime) -> FlowKey:
    return FlowKey(app.auth.master_key.derive_bytes(f"oauth-flow:{app.id}", length=32))


def trip(app: AppRuntime, provider: Provider, flow_id: str) -> Trip:
    key = flow_key(app)
    return Trip(
        redirect_uri=app.auth.url + provider.callback_path,
        state=key.token(flow_id, "state"),
        nonce=key.nonce(flow_id),
        verifier=key.verifier(flow_id),
    )


async def begin(
    app: AppRuntime,
    flow_id: str,
    provider: Provider,
    *,
    redirect_to: str,
    challenge: Challenge | None,
    caller: Caller,
    browser: str | None = None,
    linking: Linking | None = None,
) -> None:
    """`browser` is its secret, None where the browser is yet to come."""
    await app.service.run(
        Statement.of(
            QUERIES["begin_flow"],
            flow_id,
            provider.name,
            None if challenge is None else challenge.text,
            None if challenge is None else challenge.method,
            None if linking is None else linking.user_id,
            redirect_to,
            LIFE_S,
            None if browser is None else bytea(secret_hash(browser)),
            caller.now_s,
            None if linking is None else linking.session_id,
        )
    )


def new_id() -> str:
    return str(uuid.uuid4())


async def find_start(app: AppRuntime, token: str, *, now_s: float) -> Start:
    """Raises BadOAuthStateError."""
    flow_id = flow_key(app).flow_id(token, "start")
    if flow_id is None:
        raise BadOAuthStateError
    (result,) = await app.service.run(Statement.of(QUERIES["find_start"], flow_id, now_s))
    if result.row_count == 0:
        raise BadOAuthStateError
    provider, is_pkce, account = (value or b"" for value in result.rows()[0])
    return Start(flow_id, provider.decode(), is_pkce == b"t", account.decode())


def confirmation(app: AppRuntime, start: Start, browser: str) -> str:
    """What a page shown to this browser sends back."""
    return flow_key(app).confirmation(start.id, browser)


def is_confirmed(app: AppRuntime, start: Start, browser: str | None, given: str) -> bool:
    if browser is None:
        return False
    expected = confirmation(app, start, browser)
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


async def take_start(app: AppRuntime, flow_id: str, browser: str, *, now_s: float) -> None:
    """The flow becomes the browser's. Raises BadOAuthStateError when another one was first."""
    (result,) = await app.service.run(
        Statement.of(QUERIES["take_start"], flow_id, bytea(secret_hash(browser)), now_s)
    )
    if result.row_count == 0:
        raise BadOAuthStateError


async def take(app: AppRuntime, state: str, browser: str | None, *, now_s: float) -> Flow:
    """The flow, which is then gone. Raises BadOAuthStateError, also for another browser's."""
    flow_id = flow_key(app).flow_id(state, "state")
    if flow_id is None or browser is None:
        raise BadOAuthStateError
    (result,) = await app.service.run(
        Statement.of(QUERIES["take_flow"], flow_id, bytea(secret_hash(browser)), now_s)
    )
    if result.row_count == 0:
        raise BadOAuthStateError
    provider, challenge, method, user_id, session_id, redirect_to = (
        None if value is None else value.decode() for value in result.rows()[0]
    )
    assert provider is not None
    return Flow(
        flow_id,
        provider,
        redirect_to or "",
        None if challenge is None or method is None else Challenge(challenge, method),
        None if user_id is None or session_id is None else Linking(user_id, session_id),
    )
