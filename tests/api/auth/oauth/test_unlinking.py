"""Identities that are given up: by whom, and which of them stay."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.api.auth.oauth.conftest import (
    ANA,
    BEN,
    PKCE,
    World,
    follow,
    identity_id,
    providers_of,
)
from tests.api.auth.oauth.issuer import issuing


async def linked(world: World) -> dict[str, Any]:
    """Ana's session, whose account has a password and acme."""
    await world.new_user()
    return await world.signed_in()


async def test_a_user_unlinks_an_identity(world: World) -> None:
    session = await linked(world)
    answered = await world.delete_identity(identity_id(session, "acme"), session["access_token"])
    assert answered == (200, {})
    _, me = await world.get("user", session["access_token"])
    assert providers_of(me) == me["app_metadata"]["providers"] == ["email"]
    assert me["email"] == ANA
    ((payload,),) = world.rows(
        "select payload from auth.audit_log_entries"
        " where payload ->> 'action' = 'identity_unlinked'"
    )
    assert payload["traits"]["provider"] == "acme"


async def test_a_password_goes_with_its_identity(world: World) -> None:
    session = await linked(world)
    await world.delete_identity(identity_id(session, "email"), session["access_token"])
    assert (await world.sign_in_by_password())[1]["error_code"] == "invalid_credentials"
    assert (await world.signed_in())["user"]["id"] == session["user"]["id"]


async def test_the_last_identity_stays(world: World) -> None:
    session = await world.signed_in()
    status, refused = await world.delete_identity(
        identity_id(session, "acme"), session["access_token"]
    )
    assert (status, refused["error_code"]) == (422, "single_identity_not_deletable")
    await world.signed_in()


async def test_of_two_that_go_at_once_one_stays(world: World) -> None:
    session = await linked(world)
    answers = await asyncio.gather(
        *(
            world.delete_identity(identity_id(session, provider), session["access_token"])
            for provider in ("email", "acme")
        )
    )
    assert Counter(status for status, _ in answers) == {200: 1, 422: 1}
    assert world.rows("select count(*) from auth.identities") == [(1,)]


@pytest.mark.parametrize(
    ("other", "status", "code"),
    [
        ("00000000-0000-4000-8000-000000000000", 422, "identity_not_found"),
        ("nothing", 404, "validation_failed"),
    ],
)
async def test_what_is_no_identity_of_theirs_is_not_unlinked(
    world: World, other: str, status: int, code: str
) -> None:
    session = await linked(world)
    answered, refused = await world.delete_identity(other, session["access_token"])
    assert (answered, refused["error_code"]) == (status, code)


async def test_anothers_identity_is_not_unlinked(world: World) -> None:
    session = await linked(world)
    ben = await world.sign_up(BEN)
    status, refused = await world.delete_identity(
        ben["user"]["identities"][0]["identity_id"], session["access_token"]
    )
    assert (status, refused["error_code"]) == (422, "identity_not_found")
    assert world.rows("select count(*) from auth.identities") == [(3,)]


async def with_work(world: World) -> dict[str, Any]:
    """Ana's session, with acme, and with an identity of another address."""
    ana = await world.signed_in()
    async with issuing(email="ana@work.example", email_verified=True) as work:
        work.user["sub"] = "work-1"
        await world.provide("work", work)
        began = await world.begin_link(ana["access_token"], provider="work", **PKCE)
        landing = await follow(world.browser(), began)
        _, session = await world.exchange(landing.query["code"])
    return dict(session)


async def test_an_address_is_not_swapped_by_unlinking_what_has_it(world: World) -> None:
    """Who has a session for a moment would have the account's mail from then on."""
    session = await with_work(world)
    assert session["user"]["email"] == ANA
    token = session["access_token"]
    status, refused = await world.delete_identity(identity_id(session, "acme"), token)
    assert (status, refused["error_code"]) == (422, "email_conflict_identity_not_deletable")
    _, me = await world.get("user", token)
    assert (me["email"], providers_of(me)) == (ANA, ["acme", "work"])
    assert (await world.delete_identity(identity_id(session, "work"), token))[0] == 200
