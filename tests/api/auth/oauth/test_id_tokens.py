"""An id_token is believed only under the provider's own key, to us, now."""

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import Key, OctKey, OKPKey, RSAKey

from butterbase.api.auth.errors import AuthError
from butterbase.api.auth.oauth import id_tokens
from butterbase.api.auth.oauth.errors import BadIdTokenError, NonceMismatchError, OAuthError
from butterbase.api.auth.oauth.id_tokens import Header
from tests.api.auth.oauth.issuer import EC, RSA

NOW_S = 1_800_000_000
ISSUER = "https://issuer.example"
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "client",
    "sub": "user-1",
    "iat": NOW_S,
    "exp": NOW_S + 300,
}
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp-1"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa-2"})


def public(*keys: Key) -> list[dict[str, Any]]:
    return [dict(key.as_dict(private=False)) for key in keys]


def signed(key: Key, algorithm: str, claims: dict[str, Any] = CLAIMS, **header: Any) -> str:
    header = {"alg": algorithm, "kid": key.kid, **header}
    return jwt.encode(header, claims, key, algorithms=[algorithm])


def unsigned(header: dict[str, Any], claims: dict[str, Any] = CLAIMS, signature: str = "") -> str:
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in (header, claims)
    )
    return ".".join([*parts, signature])


def verified(token: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    header = id_tokens.read_header(token)
    key = id_tokens.find_key(header, keys)
    if key is None:
        raise BadIdTokenError
    return id_tokens.claims_of(token, header, key)


def check(**claims: Any) -> None:
    told = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    id_tokens.check(told, issuers={ISSUER}, client_ids=("client", "phone"), now_s=NOW_S)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (EC, "ES256"), (OKP, "EdDSA")],
)
def test_what_the_provider_signed_is_believed(key: Key, algorithm: str) -> None:
    assert verified(signed(key, algorithm), public(RSA, EC, OKP)) == CLAIMS


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "RS1", "dir"])
def test_an_algorithm_without_a_private_key_is_refused(algorithm: str) -> None:
    for signature in ("", "AAAA"):
        with pytest.raises(BadIdTokenError, match="algorithm"):
            verified(unsigned({"alg": algorithm, "kid": RSA.kid}, signature=signature), public(RSA))


def test_the_public_key_is_no_secret_to_sign_with() -> None:
    """The classic confusion: HS256 under the text of the public key."""
    body = unsigned({"alg": "HS256", "kid": RSA.kid}).rstrip(".")
    for text in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
        mac = hmac.new(text, body.encode(), hashlib.sha256).digest()
        forged = f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
        with pytest.raises(BadIdTokenError, match="algorithm"):
            verified(forged, public(RSA))


def test_a_secret_among_the_keys_verifies_nothing() -> None:
    secret = OctKey.import_key("x" * 32, {"kid": "oct"})
    with pytest.raises(BadIdTokenError):
        verified(signed(secret, "HS256"), [*public(RSA), dict(secret.as_dict())])


def test_a_key_in_the_token_itself_is_not_used() -> None:
    mine = RSAKey.generate_key(2048, {"kid": "rsa-1"})
    forged = signed(mine, "RS256", jwk=mine.as_dict(private=False))
    with pytest.raises(BadIdTokenError):
        verified(forged, public(RSA))


@pytest.mark.parametrize(
    ("header", "keys"),
    [
        (Header("RS256", "other"), public(RSA)),
        (Header("ES256", RSA.kid), public(RSA)),
        (Header("ES384", EC.kid), public(EC)),
        (Header("RS256", RSA.kid), [{**public(RSA)[0], "use": "enc"}]),
        (Header("RS256", RSA.kid), [{**public(RSA)[0], "alg": "RS512"}]),
        (Header("RS256", None), public(RSA, OTHER_RSA)),
        (Header("RS256", None), []),
    ],
)
def test_a_key_for_something_else_is_not_used(header: Header, keys: list[dict[str, Any]]) -> None:
    assert id_tokens.find_key(header, keys) is None


def test_the_only_fitting_key_needs_no_name() -> None:
    assert id_tokens.find_key(Header("ES256", None), public(RSA, EC)) == public(EC)[0]


@pytest.mark.filterwarnings("ignore")
def test_a_short_key_is_refused() -> None:
    short = RSAKey.generate_key(1024, {"kid": "short"})
    with pytest.raises(BadIdTokenError, match="too short"):
        verified(signed(short, "RS256"), public(short))


@pytest.mark.parametrize("at", range(3))
def test_a_changed_token_is_refused(at: int) -> None:
    parts = signed(EC, "ES256").split(".")
    parts[at] = ("B" if parts[at][10] == "A" else "A").join((parts[at][:10], parts[at][11:]))
    with pytest.raises(BadIdTokenError):
        verified(".".join(parts), public(EC))


def test_a_critical_extension_that_is_not_known_is_refused() -> None:
    header = {"alg": "ES256", "kid": EC.kid, "crit": ["exp2"], "exp2": 1}
    token = unsigned(header)
    with pytest.raises(BadIdTokenError):
        verified(token, public(EC))


@given(st.one_of(st.text(max_size=200), st.from_regex(r"[\w-]{1,40}\.[\w-]{1,40}\.[\w-]{0,40}")))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(BadIdTokenError):
        verified(text, public(RSA, EC))


def test_a_token_of_any_length_is_not_read() -> None:
    with pytest.raises(BadIdTokenError):
        id_tokens.read_header("A" * 20_000)


def test_what_is_told_to_us_now_is_accepted() -> None:
    check()
    check(aud="phone")
    check(aud=["client"])
    check(aud=["client", "other"], azp="client")
    check(exp=NOW_S - 59, iat=NOW_S - 400)
    check(iat=NOW_S + 59, nbf=NOW_S + 59)
    check(iat=float(NOW_S))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": "https://issuer.example/"},
        {"iss": "http://issuer.example"},
        {"iss": "https://issuer.example.evil.example"},
        {"iss": [ISSUER]},
        {"aud": None},
        {"aud": ""},
        {"aud": "other"},
        {"aud": []},
        {"aud": {"client": 1}},
        {"aud": ["other"], "azp": "client"},
        {"aud": ["client", "other"]},
        {"aud": ["client", "other"], "azp": "other"},
        {"exp": None},
        {"exp": NOW_S - 60},
        {"exp": str(NOW_S + 300)},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"iat": None},
        {"iat": NOW_S + 61},
        {"nbf": NOW_S + 61},
    ],
)
def test_what_is_told_to_others_or_at_another_time_is_not(claims: dict[str, Any]) -> None:
    with pytest.raises(OAuthError):
        check(**claims)


def test_an_issuer_for_all_tenants_is_of_the_tokens_own() -> None:
    issuers = {"https://login.microsoftonline.com/{tenantid}/v2.0"}

    def of(issuer: str, tenant: object) -> None:
        claims = {**CLAIMS, "iss": issuer, "tid": tenant}
        id_tokens.check(claims, issuers=issuers, client_ids=("client",), now_s=NOW_S)

    of("https://login.microsoftonline.com/abc/v2.0", "abc")
    for issuer, tenant in [
        ("https://login.microsoftonline.com/abc/v2.0", "def"),
        ("https://login.microsoftonline.com/a/b/v2.0", "a/b"),
        ("https://login.microsoftonline.com/{tenantid}/v2.1", "{tenantid}"),
        ("https://login.microsoftonline.com/abc/v2.0", None),
        ("https://login.microsoftonline.com/1/v2.0", 1),
    ]:
        with pytest.raises(BadIdTokenError):
            of(issuer, tenant)


def test_a_nonce_is_this_flows() -> None:
    id_tokens.check_nonce({"nonce": "n"}, "n")
    for claims in ({}, {"nonce": None}, {"nonce": ""}, {"nonce": "m"}, {"nonce": ["n"]}):
        with pytest.raises(NonceMismatchError):
            id_tokens.check_nonce(claims, "n")


def test_a_clients_own_nonce_is_told_hashed() -> None:
    digest = hashlib.sha256(b"n").hexdigest()
    id_tokens.check_hashed_nonce({"nonce": digest}, "n")
    id_tokens.check_hashed_nonce({}, None)
    id_tokens.check_hashed_nonce({"nonce": ""}, "")
    for claims, nonce in [({"nonce": digest}, None), ({}, "n")]:
        with pytest.raises(OAuthError, match="should either both exist or not"):
            id_tokens.check_hashed_nonce(claims, nonce)
    for told in ("n", digest.upper(), hashlib.sha256(b"m").hexdigest()):
        with pytest.raises(NonceMismatchError):
            id_tokens.check_hashed_nonce({"nonce": told}, "n")


@pytest.mark.parametrize(
    ("algorithm", "bits"), [("RS256", 256), ("ES384", 384), ("PS512", 512), ("EdDSA", 512)]
)
def test_an_access_token_is_the_one_of_the_id_token(algorithm: str, bits: int) -> None:
    header = Header(algorithm, None)
    digest = hashlib.new(f"sha{bits}", b"access").digest()
    half = base64.urlsafe_b64encode(digest[: bits // 16]).decode().rstrip("=")
    id_tokens.check_access_token({"at_hash": half}, header, "access")
    id_tokens.check_access_token({}, header, "access")
    for told in (half, half + "=", "", 1):
        with pytest.raises(BadIdTokenError):
            id_tokens.check_access_token(
                {"at_hash": told}, header, "stolen" if told == half else "access"
            )


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "azp", "tid", "nonce", "at_hash"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2),
            max_leaves=3,
        ),
    )
)
def test_any_claims_are_accepted_or_refused(claims: dict[str, Any]) -> None:
    told = {**CLAIMS, **claims}
    judges: list[Callable[[], None]] = [
        lambda: id_tokens.check(
            told, issuers={ISSUER, "{tenantid}"}, client_ids=("client",), now_s=NOW_S
        ),
        lambda: id_tokens.check_nonce(told, "n"),
        lambda: id_tokens.check_hashed_nonce(told, "n"),
        lambda: id_tokens.check_access_token(told, Header("RS256", None), "a"),
    ]
    for judge in judges:
        with contextlib.suppress(AuthError):
            judge()
