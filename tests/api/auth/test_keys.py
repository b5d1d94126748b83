"""ES256: the keys, their rotation, and what an attacker who knows all that is public can sign."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from butterbase.api.auth.keys import ROTATION_S, AppKeys, app_keys
from butterbase.api.auth.tokens import EPOCHS_AHEAD_MAX, LEEWAY_S, Tokens, TokenSubject
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.secrets import MasterKey

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = int(CREATED.timestamp()) + 10 * ROTATION_S + 1000
MASTER = MasterKey(bytes(32))
ISSUER = "https://api.example.com/auth/v1"
KEYS = app_keys(MASTER, "main", CREATED, issuer=ISSUER, jwt_secret="s" * 64)
SUBJECT = TokenSubject("7c9e6679-7425-40de-944b-e07fc1f90ae7", "a@b.c", "session", {}, {})


def issued(tokens: Tokens, now_s: float = NOW_S) -> str:
    return tokens.sign(SUBJECT, now_s=int(now_s), life_s=3600)


def claims(**changes: Any) -> dict[str, Any]:
    ours = Tokens(KEYS).claims_of(SUBJECT, issued_at_s=NOW_S, expires_at_s=NOW_S + 60)
    return {name: value for name, value in (ours | changes).items() if value is not ...}


def forged(
    key: Any, algorithm: str = "ES256", *, header: dict[str, Any] | None = None, **changes: Any
) -> str:
    """A token with our claims, and our current `kid` unless another header is given."""
    if header is None:
        header = {"kid": Tokens(KEYS).jwks(now_s=NOW_S)[1]["kid"]}
    return jwt.encode(claims(**changes), key, algorithm, headers=header)


def with_our_key(**changes: Any) -> str:
    return forged(KEYS.signing.key(10).private, **changes)


def public_keys(keys: AppKeys) -> dict[str, bytes]:
    """Forms of the public key that a confused library would take for a secret."""
    key = keys.signing.key(10)
    return {
        "pem": key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point": key.public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "jwk": json.dumps(key.jwk).encode(),
        "x": base64.urlsafe_b64decode(key.jwk["x"] + "="),
    }


def test_a_token_is_signed_by_a_key_that_the_jwks_has() -> None:
    tokens = Tokens(KEYS)
    token = issued(tokens)
    header = jwt.get_unverified_header(token)
    (published,) = (k for k in tokens.jwks(now_s=NOW_S) if k["kid"] == header["kid"])
    assert (header["alg"], published["alg"], published["use"]) == ("ES256", "ES256", "sig")
    payload = jwt.decode(
        token,
        jwt.PyJWK(published).key,
        algorithms=["ES256"],
        audience=AUTHENTICATED,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert payload["sub"] == SUBJECT.id


def test_the_kid_is_the_keys_thumbprint() -> None:
    # RFC 7638, by hand: the members in the order of their names, without spaces.
    key = KEYS.signing.key(3)
    text = f'{{"crv":"P-256","kty":"EC","x":"{key.jwk["x"]}","y":"{key.jwk["y"]}"}}'
    digest = hashlib.sha256(text.encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_every_process_has_the_same_keys_and_no_app_those_of_another() -> None:
    again = app_keys(MASTER, "main", CREATED)
    other = app_keys(MASTER, "other", CREATED)
    elsewhere = app_keys(MasterKey(b"1" * 32), "main", CREATED)
    kids = [keys.signing.key(n).kid for keys in (KEYS, other, elsewhere) for n in range(3)]
    assert [again.signing.key(n).kid for n in range(3)] == kids[:3]
    assert len(set(kids)) == len(kids)


def test_the_jwks_holds_nothing_private() -> None:
    published = Tokens(KEYS).jwks(now_s=NOW_S)
    assert len(published) == 3
    for key in published:
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use", "key_ops"}
        assert isinstance(ECAlgorithm.from_jwk(key), ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("form", ["pem", "der", "point", "jwk", "x"])
@pytest.mark.parametrize("has_kid", [True, False])
def test_the_public_key_is_no_secret_of_hs256(form: str, has_kid: bool) -> None:
    header = {"alg": "HS256", "typ": "JWT"}
    if has_kid:
        header["kid"] = KEYS.signing.key(10).kid

    # PyJWT refuses to sign with a key in PEM; an attacker does not use PyJWT.
    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    head = part(header) + b"." + part(claims(role=SERVICE_ROLE))
    mac = hmac.digest(public_keys(KEYS)[form], head, hashlib.sha256)
    token = (head + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
    with pytest.raises(InvalidTokenError):
        Tokens(KEYS).verify(token, now_s=NOW_S)


STRANGER = ec.generate_private_key(ec.SECP256R1())
STRANGERS_JWK = ECAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)


@pytest.mark.parametrize(
    "token",
    [
        forged(STRANGER),
        forged(STRANGER, header={}),
        forged(STRANGER, header={"kid": "strange"}),
        forged(STRANGER, header={"jwk": STRANGERS_JWK}),
        forged(STRANGER, header={"kid": "x", "jku": "https://evil.example.com/jwks.json"}),
        forged(STRANGER, header={"kid": "../../dev/null", "x5u": "https://evil.example.com"}),
        forged(ec.generate_private_key(ec.SECP384R1()), "ES384"),
        forged(KEYS.signing.key(10).private, header={}),
        forged(KEYS.jwt_secret, "HS512"),
        forged(app_keys(MASTER, "other", CREATED).signing.key(10).private),
    ],
)
def test_nobody_else_signs(token: str) -> None:
    for _ in range(2):  # the second time past the cache
        with pytest.raises(InvalidTokenError):
            Tokens(KEYS).verify(token, now_s=NOW_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example.com/auth/v1"},
        {"iss": ...},
        {"aud": "other"},
        {"aud": ...},
        {"aud": []},
        {"exp": ...},
        {"exp": "never"},
        {"exp": True},
        {"iat": ...},
        {"iat": NOW_S + LEEWAY_S + 1},
        {"sub": ...},
        {"nbf": NOW_S + LEEWAY_S + 1},
        {"nbf": "x"},
        {"role": "postgres"},
        {"exp": NOW_S - LEEWAY_S},
    ],
)
def test_a_token_of_ours_says_what_it_must(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        Tokens(KEYS).verify(with_our_key(**changes), now_s=NOW_S)


def test_clocks_may_differ_by_the_leeway() -> None:
    ahead = with_our_key(iat=NOW_S + LEEWAY_S, nbf=NOW_S + LEEWAY_S, exp=NOW_S - LEEWAY_S + 1)
    assert Tokens(KEYS).verify(ahead, now_s=NOW_S).subject == SUBJECT.id


def test_the_developers_secret_still_signs() -> None:
    token = jwt.encode({"role": SERVICE_ROLE, "aud": "mine"}, KEYS.jwt_secret, "HS256")
    assert Tokens(KEYS).verify(token, now_s=NOW_S).role == SERVICE_ROLE


def test_an_app_may_ask_for_hs256() -> None:
    tokens = Tokens(KEYS)
    token = tokens.sign_claims(claims(), now_s=NOW_S, algorithm="HS256")
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    assert tokens.verify(token, now_s=NOW_S).subject == SUBJECT.id


def test_a_rotation_goes_by_without_a_client_noticing() -> None:
    boundary = int(CREATED.timestamp()) + 11 * ROTATION_S
    before, after = issued(Tokens(KEYS), boundary - 1), issued(Tokens(KEYS), boundary)
    kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
    assert kids[0] != kids[1]
    for now_s in (boundary - 1, boundary):
        # Whoever fetched the JWKS before the rotation knows the next key already.
        assert set(kids) <= {key["kid"] for key in Tokens(KEYS).jwks(now_s=now_s)}
        tokens = Tokens(KEYS)
        for token in (before, after):  # also by a process whose clock is a second behind
            assert tokens.verify(token, now_s=now_s).subject == SUBJECT.id


def test_a_key_is_retired_after_the_period_of_the_next_one() -> None:
    token = jwt.encode(
        claims(exp=NOW_S + 10 * ROTATION_S),
        KEYS.signing.key(10).private,
        "ES256",
        {"kid": KEYS.signing.key(10).kid},
    )
    tokens = Tokens(KEYS)
    assert tokens.verify(token, now_s=NOW_S + ROTATION_S).subject == SUBJECT.id
    fresh = Tokens(KEYS)
    with pytest.raises(InvalidTokenError):
        fresh.verify(token, now_s=NOW_S + 2 * ROTATION_S)


def test_two_rotations_on_demand_retire_what_was_signed_before_at_once() -> None:
    tokens = Tokens(KEYS)
    old = issued(tokens)
    assert tokens.verify(old, now_s=NOW_S).subject == SUBJECT.id
    tokens.key_epoch = 1
    assert tokens.verify(old, now_s=NOW_S).subject == SUBJECT.id  # clients keep their sessions
    tokens.key_epoch = 2
    with pytest.raises(InvalidTokenError):  # also past the cache
        tokens.verify(old, now_s=NOW_S)
    assert tokens.verify(issued(tokens), now_s=NOW_S).subject == SUBJECT.id


def test_who_was_not_told_of_rotations_learns_of_them_from_a_token() -> None:
    rotated, stream = Tokens(KEYS), Tokens(KEYS)
    old = issued(rotated)
    assert stream.verify(old, now_s=NOW_S).subject == SUBJECT.id
    rotated.key_epoch = 5
    assert stream.verify(issued(rotated), now_s=NOW_S).subject == SUBJECT.id
    assert stream.key_epoch >= 4
    with pytest.raises(InvalidTokenError):
        stream.verify(old, now_s=NOW_S)


def test_what_is_far_ahead_is_not_searched_for() -> None:
    rotated, stream = Tokens(KEYS), Tokens(KEYS)
    rotated.key_epoch = EPOCHS_AHEAD_MAX + 10
    with pytest.raises(InvalidTokenError):
        stream.verify(issued(rotated), now_s=NOW_S)
    assert stream.key_epoch == 0


def test_an_epoch_does_not_go_back() -> None:
    tokens = Tokens(KEYS)
    tokens.key_epoch = 3
    tokens.key_epoch = 0
    assert tokens.key_epoch == 3


def test_a_clock_before_the_apps_birth_has_keys_too() -> None:
    tokens = Tokens(KEYS)
    early_s = CREATED.timestamp() - 100
    assert tokens.verify(issued(tokens, early_s), now_s=early_s).subject == SUBJECT.id
    assert len(tokens.jwks(now_s=early_s)) == 2
