import base64
import json
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from butterbase.api.rest.errors import InvalidClaimsError, RestError, UndecodableTokenError
from butterbase.api.rest.postgrest.errors import NoSecretError, TokenRequiredError
from butterbase.api.rest.postgrest.keys import Keys, decode_base64, read_keys
from butterbase.api.rest.postgrest.role_path import parse_role_path
from butterbase.api.rest.postgrest.tokens import (
    Authenticator,
    TokenSettings,
    bearer_token,
    decode_token,
)
from butterbase.sql.errors import SettingError

SECRET = b"reallyreallyreallyreallyverysafe"
NOW_S = 1_700_000_000.5
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def signed(claims: Any, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> bytes:
    return jwt.encode(claims, key, algorithm, headers=header).encode()


def jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    made = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    return {**made, **more}


def keys(*jwks: dict[str, Any]) -> Keys:
    return read_keys(json.dumps({"keys": list(jwks)}).encode())


def pem_of(key: Any) -> bytes:
    found = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(found, bytes)
    return found


PUBLIC = keys(
    jwk(RSA.public_key(), "RS256", kid="rsa"),
    jwk(EC.public_key(), "ES256", kid="ec"),
    jwk(ED.public_key(), "EdDSA", kid="ed"),
)


def authenticator(**settings: Any) -> Authenticator:
    defaults: dict[str, Any] = {
        "keys": read_keys(SECRET),
        "role_path": parse_role_path("$.role"),
        "anon_role": "anon",
    }
    return Authenticator(TokenSettings(**{**defaults, **settings}))


def refusal(of: Authenticator, token: bytes) -> RestError:
    with pytest.raises(RestError) as caught:
        of.verify(token, now_s=NOW_S)
    return caught.value


# Who a request speaks for


def test_a_tokens_role_is_the_callers_and_its_claims_are_kept() -> None:
    claims = authenticator().verify(
        signed({"role": "author", "sub": "7", "exp": 2e9, "x": {"y": [1]}}), now_s=NOW_S
    )
    assert (claims.role, claims.subject, claims.expires_at) == ("author", "7", 2_000_000_000)
    assert msgspec.json.decode(claims.json)["x"] == {"y": [1]}


def test_without_a_token_the_caller_is_anonymous() -> None:
    claims = authenticator().authenticate({b"accept": b"*/*"}, now_s=NOW_S)
    assert (claims.role, claims.json) == ("anon", '{"role":"anon"}')


def test_a_token_without_a_role_speaks_for_the_anonymous_role() -> None:
    claims = authenticator().verify(signed({"id": 1}), now_s=NOW_S)
    assert (claims.role, claims.json) == ("anon", '{"id":1,"role":"anon"}')


def test_a_role_that_is_null_is_none_at_all() -> None:
    assert authenticator().verify(signed({"role": None}), now_s=NOW_S).role == "anon"
    with pytest.raises(TokenRequiredError):
        authenticator(anon_role=None).verify(signed({"role": None}), now_s=NOW_S)


def test_no_token_speaks_for_the_login_role() -> None:
    error = refusal(authenticator(), signed({"role": "none"}))
    assert (error.status, error.code) == (401, "PGRST303")
    assert authenticator().verify(signed({"role": "None"}), now_s=NOW_S).role == "None"


def test_without_an_anonymous_role_a_role_is_required() -> None:
    of = authenticator(anon_role=None)
    for headers in ({}, {b"authorization": b"Bearer " + signed({"id": 1})}):
        with pytest.raises(TokenRequiredError) as caught:
            of.authenticate(headers, now_s=NOW_S)
        assert caught.value.message == "Anonymous access is disabled"
        assert caught.value.headers == [(b"www-authenticate", b"Bearer")]
    assert of.verify(signed({"role": "author"}), now_s=NOW_S).role == "author"


def test_without_a_secret_a_token_is_refused_and_none_is_needed() -> None:
    of = authenticator(keys=None)
    assert of.authenticate({}, now_s=NOW_S).role == "anon"
    error = refusal(of, signed({"role": "author"}))
    assert isinstance(error, NoSecretError)
    assert (error.status, error.code, error.message) == (500, "PGRST300", "Server lacks JWT secret")
    assert list(error.headers) == []


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Bearer", b""),
        (b"Bearer ", b""),
        (b"Basic abc", None),
        (b"abc", None),
    ],
)
def test_the_scheme_is_bearer_in_any_case(header: bytes, token: bytes | None) -> None:
    assert bearer_token(header) == token


def test_the_role_may_be_anywhere_in_the_claims() -> None:
    of = authenticator(role_path=parse_role_path("$.realm.roles[?(@ == 'author')]"))
    claims = of.verify(signed({"realm": {"roles": ["x", "author"]}}), now_s=NOW_S)
    assert claims.role == "author"
    assert msgspec.json.decode(claims.json)["role"] == "author"


# What is no token


@pytest.mark.parametrize(
    ("token", "message", "details"),
    [
        (b"", "Empty JWT is sent in Authorization header", None),
        (b"a.b", "Expected 3 parts in JWT; got 2", None),
        (b"a.b.c.d.e", "Expected 3 parts in JWT; got 5", None),
        (b"quifquirndsj.fonvoienqhhdj.iuqvnvhojah", "JWT cryptographic operation failed", None),
        (b"\xff.\xff.\xff", "JWT cryptographic operation failed", None),
        (
            jwt.encode({"role": "author"}, "", "none").encode(),
            "Wrong or unsupported encoding algorithm",
            "JWT is unsecured but expected 'alg' was not 'none'",
        ),
        (
            signed({"role": "author"}, b"another secret, also 32 bytes long"),
            "No suitable key or wrong key type",
            "None of the keys was able to decode the JWT",
        ),
        (
            signed({"role": "author"}, b"s" * 64, "HS512"),
            "No suitable key or wrong key type",
            "No suitable key was found to decode the JWT",
        ),
    ],
)
def test_what_is_no_token_is_refused(token: bytes, message: str, details: str | None) -> None:
    error = refusal(authenticator(), token)
    assert isinstance(error, UndecodableTokenError)
    assert (error.status, error.code) == (401, "PGRST301")
    assert (error.message, error.details) == (message, details)
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    assert error.headers == [(b"www-authenticate", challenge.encode())]


def test_a_token_that_was_changed_is_refused() -> None:
    head, _, signature = signed({"role": "author"}).split(b".")
    payload = base64.urlsafe_b64encode(b'{"role":"admin"}').rstrip(b"=")
    error = refusal(authenticator(), b".".join([head, payload, signature]))
    assert error.details == "None of the keys was able to decode the JWT"


def test_claims_that_are_no_object_are_refused() -> None:
    token = jwt.api_jws.encode(b"[1]", SECRET, "HS256").encode()
    error = refusal(authenticator(), token)
    assert (error.code, error.message) == ("PGRST303", "Parsing claims failed")


def test_a_header_that_must_be_understood_is_refused() -> None:
    error = refusal(authenticator(), signed({"role": "author"}, crit=["b64"], b64=False))
    assert error.message == "JWT cryptographic operation failed"


@given(st.binary() | st.text("eyJ0.-_=").map(str.encode))
def test_any_bytes_are_refused_with_an_error_of_ours(token: bytes) -> None:
    with pytest.raises(RestError):
        decode_token(token, read_keys(SECRET))


def test_deeply_nested_headers_are_refused() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 40_000).rstrip(b"=")
    assert refusal(authenticator(), header + b".e30.e30").code == "PGRST301"


# Keys


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA, "RS256"),
        (RSA, "RS512"),
        (RSA, "PS256"),
        (EC, "ES256"),
        (ED, "EdDSA"),
    ],
)
def test_public_keys_verify_the_algorithms_of_their_type(key: Any, algorithm: str) -> None:
    assert decode_token(signed({"a": 1}, key, algorithm), PUBLIC) == {"a": 1}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_symmetric_jwk_verifies_every_hmac(algorithm: str) -> None:
    found = keys(jwk(b"k" * 64, "HS256", alg=None))
    assert decode_token(signed({"a": 1}, b"k" * 64, algorithm), found) == {"a": 1}


def test_a_public_key_is_no_hmac_secret() -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hmac = get_default_algorithms()["HS256"]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=") + b".e30"
    for secret in (pem, json.dumps(jwk(RSA.public_key(), "RS256")).encode()):
        signature = base64.urlsafe_b64encode(hmac.sign(head, secret)).rstrip(b"=")
        with pytest.raises(UndecodableTokenError) as caught:
            decode_token(head + b"." + signature, PUBLIC)
        assert caught.value.details == "No suitable key was found to decode the JWT"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA, "RS256"),
        (RSA, "PS512"),
        (EC, "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
    ],
)
def test_a_public_key_in_pem_is_one_and_no_text(key: Any, algorithm: str) -> None:
    hmac = get_default_algorithms()["HS256"]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=") + b".e30"
    for pem in (pem_of(key), b"\n" + pem_of(key) + b"\n"):
        found = read_keys(pem)
        assert decode_token(signed({"a": 1}, key, algorithm), found) == {"a": 1}
        signature = base64.urlsafe_b64encode(hmac.sign(head, pem)).rstrip(b"=")
        with pytest.raises(UndecodableTokenError):
            decode_token(head + b"." + signature, found)


def test_a_jwk_verifies_only_the_algorithm_that_it_names() -> None:
    found = keys(jwk(RSA.public_key(), "RS256", alg="RS256"))
    assert decode_token(signed({}, RSA, "RS256"), found) == {}
    with pytest.raises(UndecodableTokenError):
        decode_token(signed({}, RSA, "RS384"), found)


def test_a_kid_picks_its_key_and_no_other() -> None:
    assert decode_token(signed({}, RSA, "RS256", kid="rsa"), PUBLIC) == {}
    with pytest.raises(UndecodableTokenError):
        decode_token(signed({}, RSA, "RS256", kid="ec"), PUBLIC)


def test_keys_of_other_kinds_and_uses_are_passed_over() -> None:
    found = keys(
        {"kty": "unheard-of", "x": 1},
        jwk(RSA.public_key(), "RS256", use="enc"),
        jwk(RSA, "RS256", use="sig"),  # a private key verifies too
    )
    assert [bool(key.algorithms) for key in found] == [False, False, True]
    assert decode_token(signed({}, RSA, "RS256"), found) == {}


@pytest.mark.parametrize(
    "secret",
    [
        b"short",
        b"",
        b'{"kty":"RSA","n":"AQAB"}',
        b'{"keys":[7]}',
        b'{"kty":"oct"}',
        b'{"kty":"oct","k":""}',
        b'{"kty":"oct","k":"' + b"a" * 41 + b'"}',
        b'{"keys":[{"kty":"oct","k":"YQ"}]}',
        b"-----BEGIN PUBLIC KEY-----\nthis is no key at all\n-----END PUBLIC KEY-----",
        pem_of(ED),
        RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_keys_that_cannot_be_read_are_refused(secret: bytes) -> None:
    with pytest.raises(SettingError):
        read_keys(secret)


def test_a_secret_may_be_base64_of_either_alphabet() -> None:
    raw = bytes(range(250, 256)) * 6
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"=")):
        assert decode_base64(text.decode() + "\n") == raw


# Claims that hold or do not


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": NOW_S - 35}, "JWT expired"),
        ({"nbf": NOW_S + 35}, "JWT not yet valid"),
        ({"iat": NOW_S + 35}, "JWT issued at future"),
        ({"exp": "1"}, "The JWT 'exp' claim must be a number"),
        ({"exp": True}, "The JWT 'exp' claim must be a number"),
        ({"nbf": "1"}, "The JWT 'nbf' claim must be a number"),
        ({"iat": {}}, "The JWT 'iat' claim must be a number"),
        ({"aud": {}}, "The JWT 'aud' claim must be a string or an array of strings"),
        ({"aud": ["ours", 1]}, "The JWT 'aud' claim must be a string or an array of strings"),
        ({"aud": "theirs"}, "JWT not in audience"),
        ({"aud": ""}, "JWT not in audience"),
        ({"aud": ["theirs", "others"]}, "JWT not in audience"),
        ({"exp": NOW_S - 35, "nbf": "1", "aud": "theirs"}, "JWT expired"),
    ],
)
def test_claims_that_do_not_hold_are_refused(claims: dict[str, Any], message: str) -> None:
    of, token = authenticator(audience="ours"), jwt.encode(claims, SECRET, "HS256").encode()
    for _ in range(2):  # the second time from the cache
        error = refusal(of, token)
        assert isinstance(error, InvalidClaimsError)
        assert (error.status, error.code, error.message) == (401, "PGRST303", message)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S - 25},
        {"nbf": NOW_S + 25, "iat": NOW_S + 25},
        {"exp": None, "nbf": None, "aud": None},
        {"aud": []},
        {"aud": "ours"},
        {"aud": ["theirs", "ours"]},
        {},
    ],
)
def test_claims_hold_within_the_skew_and_for_our_audience(claims: dict[str, Any]) -> None:
    token = jwt.encode({**claims, "role": "author"}, SECRET, "HS256").encode()
    assert authenticator(audience="ours").verify(token, now_s=NOW_S).role == "author"


def test_without_an_audience_of_ours_every_one_will_do() -> None:
    assert authenticator().verify(signed({"aud": "theirs"}), now_s=NOW_S).role == "anon"


# The cache


def test_a_token_is_verified_once_and_expires_all_the_same() -> None:
    of, token = authenticator(), signed({"role": "author", "exp": int(NOW_S)})
    first = of.verify(token, now_s=NOW_S)
    assert of.verify(token, now_s=NOW_S + 30) is first
    assert (of.lookup_count, of.hit_count) == (2, 1)
    with pytest.raises(InvalidClaimsError, match="JWT expired"):
        of.verify(token, now_s=NOW_S + 31)


def test_the_cache_is_bounded_and_may_be_off() -> None:
    of, off = authenticator(cached_count_max=2), authenticator(cached_count_max=0)
    tokens = [signed({"role": f"role{n}"}) for n in range(3)]
    for token in (*tokens, tokens[0]):
        of.verify(token, now_s=NOW_S)
        off.verify(token, now_s=NOW_S)
    assert (of.hit_count, of.eviction_count) == (0, 2)
    assert (off.hit_count, off.eviction_count) == (0, 0)


def test_tokens_that_are_refused_are_not_kept() -> None:
    of = authenticator()
    for _ in range(2):
        refusal(of, b"a.b.c")
    assert of.hit_count == 0
