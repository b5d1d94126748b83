import time
from datetime import UTC, datetime

import pytest

from butterbase.api.auth.keys import app_keys
from butterbase.api.auth.tokens import Tokens, TokenSubject
from butterbase.api.callers import RequestIds, verify_caller
from butterbase.api.errors import MissingKeyError
from butterbase.api.keys.keyring import Keyring
from butterbase.sql.claims import Claims
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey

NOW_S = int(time.time())
TOKENS = Tokens(
    app_keys(
        MasterKey(bytes(32)),
        "main",
        datetime.fromtimestamp(NOW_S, UTC),
        anon="the-anon-key",
        service_role="the-service-key",
    )
)
KEYRING = Keyring(Executor("host=nowhere.invalid"), "main")
"""Not to be asked: nobody sends an app key here."""
TOKEN = TOKENS.sign(TokenSubject("ana", None, "s", {}, {}), now_s=NOW_S, life_s=60)


async def verify(authorization: str | None, key: str | None) -> Claims:
    return await verify_caller(
        TOKENS, KEYRING, scope=None, authorization=authorization, key=key, now_s=NOW_S
    )


@pytest.mark.parametrize(
    ("authorization", "key", "role"),
    [
        (None, "the-anon-key", "anon"),
        ("Bearer the-anon-key", "the-anon-key", "anon"),
        (f"Bearer {TOKEN}", "the-anon-key", "authenticated"),
        (f"bearer  {TOKEN} ", None, "authenticated"),
        ("Bearer ", "the-service-key", "service_role"),
        ("Basic eDp5", "the-anon-key", "anon"),
    ],
)
async def test_the_token_speaks_for_the_caller_else_the_key(
    authorization: str | None, key: str | None, role: str
) -> None:
    claims = await verify(authorization, key)
    assert claims.role == role


@pytest.mark.parametrize(
    ("authorization", "key", "refusal"),
    [
        (None, None, MissingKeyError),
        ("", "", MissingKeyError),
        ("Bearer ", None, MissingKeyError),
        ("Basic eDp5", None, MissingKeyError),
        (f"Bearer {TOKEN}", "no-key", InvalidTokenError),
        ("Bearer no-token", "the-anon-key", InvalidTokenError),
    ],
)
async def test_both_must_be_valid_where_both_are_sent(
    authorization: str | None, key: str | None, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await verify(authorization, key)


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "é", "a\nb"])
def test_a_request_without_a_plain_id_gets_one(given: str | None) -> None:
    ids = RequestIds()
    first, second = ids.of(given), ids.of(given)
    assert first != second
    assert ids.of(first) == first
