import time

import pytest

from butterbase.api.auth.keys import AppKeys
from butterbase.api.auth.tokens import Tokens, TokenSubject
from butterbase.api.callers import RequestIds, verify_caller
from butterbase.api.errors import MissingKeyError
from butterbase.sql.errors import InvalidTokenError

TOKENS = Tokens(AppKeys(jwt_secret="x" * 32, anon="the-anon-key", service_role="the-service-key"))
NOW_S = int(time.time())
TOKEN = TOKENS.sign(TokenSubject("ana", None, "s", {}, {}), now_s=NOW_S, life_s=60)


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
def test_the_token_speaks_for_the_caller_else_the_key(
    authorization: str | None, key: str | None, role: str
) -> None:
    claims = verify_caller(TOKENS, authorization=authorization, key=key, now_s=NOW_S)
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
def test_both_must_be_valid_where_both_are_sent(
    authorization: str | None, key: str | None, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        verify_caller(TOKENS, authorization=authorization, key=key, now_s=NOW_S)


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "é", "a\nb"])
def test_a_request_without_a_plain_id_gets_one(given: str | None) -> None:
    ids = RequestIds()
    first, second = ids.of(given), ids.of(given)
    assert first != second
    assert ids.of(first) == first
