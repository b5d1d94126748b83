import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from butterbase.api.auth.keys import app_keys
from butterbase.api.auth.tokens import LEEWAY_S, ExpiredTokenError, Tokens, TokenSubject
from butterbase.sql.claims import ANON, AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.secrets import MasterKey

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = int(CREATED.timestamp()) + 1000
KEY = MasterKey(bytes(32))
KEYS = app_keys(KEY, "main", CREATED)
SUBJECT = TokenSubject("7c9e6679-7425-40de-944b-e07fc1f90ae7", "a@b.c", "session", {}, {})


def signed(secret: str = KEYS.jwt_secret, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"role": AUTHENTICATED, **claims}, secret, algorithm)


def unsigned(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def test_a_signed_token_speaks_for_its_user() -> None:
    tokens = Tokens(KEYS)
    claims = tokens.verify(tokens.sign(SUBJECT, now_s=NOW_S, life_s=60), now_s=NOW_S)
    assert (claims.role, claims.subject, claims.session_id) == (
        AUTHENTICATED,
        SUBJECT.id,
        "session",
    )


def test_the_keys_speak_for_their_roles() -> None:
    tokens = Tokens(KEYS)
    assert tokens.verify(KEYS.anon, now_s=NOW_S).role == ANON
    assert tokens.verify(KEYS.service_role, now_s=NOW_S).role == SERVICE_ROLE


def test_keys_that_are_given_are_used_as_they_are() -> None:
    given = {"jwt_secret": "s" * 32, "anon": "sb_publishable_1", "service_role": "sb_secret_1"}
    keys = app_keys(KEY, "main", CREATED, **given)
    tokens = Tokens(keys)
    assert tokens.verify("sb_publishable_1", now_s=NOW_S).role == ANON
    assert tokens.verify("sb_secret_1", now_s=NOW_S).role == SERVICE_ROLE
    assert tokens.verify(signed("s" * 32), now_s=NOW_S).role == AUTHENTICATED
    with pytest.raises(InvalidTokenError):
        tokens.verify(KEYS.anon, now_s=NOW_S)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "ü.ü.ü",
        "e" * 10_000,
        signed("another secret of thirty-two bytes"),
        signed(algorithm="HS512", secret="k" * 64),
        unsigned({"role": SERVICE_ROLE}),
        signed(role="postgres"),
        signed(role="authenticator"),
        signed(role=["service_role"]),
        signed(role=None),
        signed(exp="tomorrow"),
        signed(exp=float("inf")),
        signed(exp=float("nan")),
        "\xe9\udce9.b.c",
        signed(note="\ud800"),
        signed(nbf=99_999_999_999),
        app_keys(KEY, "other", CREATED).service_role,
    ],
)
def test_any_other_token_is_refused(token: str) -> None:
    tokens = Tokens(KEYS)
    for _ in range(2):  # the second time past the cache
        with pytest.raises(InvalidTokenError):
            tokens.verify(token, now_s=NOW_S)


def test_a_token_ends_with_its_expiry_also_when_it_was_verified_before() -> None:
    tokens = Tokens(KEYS)
    token = tokens.sign(SUBJECT, now_s=NOW_S, life_s=60)
    assert tokens.verify(token, now_s=NOW_S + 60).subject == SUBJECT.id
    for late_s in (60 + LEEWAY_S, 600):
        with pytest.raises(ExpiredTokenError):
            tokens.verify(token, now_s=NOW_S + late_s)


def test_the_cache_is_bounded() -> None:
    tokens = Tokens(KEYS, cached_count_max=3)
    for i in range(10):
        tokens.verify(signed(sub=str(i)), now_s=NOW_S)
    assert len(tokens._cache) == 3
