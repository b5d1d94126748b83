"""What is said to providers: where a browser is sent, and what its code is worth. RFC 6749, 4.1."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import jwt
from msgspec import Struct

from butterbase.api.auth.auth_codes import s256
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.oauth import id_tokens, profiles
from butterbase.api.auth.oauth.discovery import Discovery, Metadata
from butterbase.api.auth.oauth.errors import (
    BadIdTokenError,
    OAuthProviderNotSupportedError,
    ProviderRefusedError,
    ProviderUnreachableError,
)
from butterbase.api.auth.oauth.http import ProviderHttp
from butterbase.api.auth.oauth.identity import Identity, merged
from butterbase.api.auth.oauth.providers import ClientAuth, Provider

TOKEN_LENGTH_MAX: Final = 16_384

_SCOPE = re.compile(r"[!#-\[\]-~]{1,200}")
_SCOPE_COUNT_MAX = 50
_APPLE_SECRET_LIFE_S = 300


class SignIn(Struct, frozen=True):
    """What came of a code. Its repr shows no token."""

    person: Identity
    access_token: str | None = None
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return f"SignIn({self.person.subject!r})"


class Trip(Struct, frozen=True):
    """A browser's way to a provider and back."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str


class _Reached(Struct, frozen=True):
    """Where a provider's endpoints are."""

    authorize: str
    token: str
    client_auth: ClientAuth
    metadata: Metadata | None


class Exchange:
    def __init__(self, http: ProviderHttp, discovery: Discovery) -> None:
        self._http = http
        self._discovery = discovery

    async def authorization_url(
        self,
        provider: Provider,
        trip: Trip,
        *,
        scopes: Sequence[str] = (),
        extra: Mapping[str, str] = {},
    ) -> str:
        """Raises ProviderUnreachableError. `scopes` are added; `extra` are the client's own."""
        reached = await self._reach(provider)
        needed = list(provider.scopes)
        if reached.metadata is not None and not provider.known.is_form_post:
            needed.insert(0, "openid")
        parameters = {
            **extra,
            "client_id": provider.settings.client_id,
            "redirect_uri": trip.redirect_uri,
            "response_type": "code",
            "scope": " ".join(dict.fromkeys([*needed, *scopes])),
            "state": trip.state,
        }
        if provider.known.has_pkce:
            parameters["code_challenge"] = s256(trip.verifier)
            parameters["code_challenge_method"] = "S256"
        if reached.metadata is not None and provider.known.has_nonce:
            parameters["nonce"] = trip.nonce
        if provider.known.is_form_post:
            parameters["response_mode"] = "form_post"
        separator = "&" if "?" in reached.authorize else "?"
        # Apple reads a plus as itself.
        query = urlencode(parameters).replace("+", "%20")
        return f"{reached.authorize}{separator}{query}"

    async def tells_issuer(self, provider: Provider) -> tuple[bool, bool]:
        """Whether it has an issuer that may come with its answers, and whether that must come.

        RFC 9207. Raises ProviderUnreachableError.
        """
        metadata = (await self._reach(provider)).metadata
        if metadata is None:
            return False, False
        return True, metadata.authorization_response_iss_parameter_supported

    async def redeem(self, provider: Provider, trip: Trip, code: str, *, now_s: float) -> SignIn:
        """Who signed in. Raises ProviderUnreachableError, ProviderRefusedError, OAuthError."""
        reached = await self._reach(provider)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": trip.redirect_uri,
        }
        if provider.known.has_pkce:
            form["code_verifier"] = trip.verifier
        headers: dict[str, str] = {}
        _authenticate(provider, reached.client_auth, form, headers, now_s)
        answer = await self._http.post(reached.token, form, headers=headers)
        tokens = _tokens(answer)
        access_token = tokens["access_token"]
        if reached.metadata is not None:
            person = await self._of_id_token(provider, reached.metadata, tokens, trip, now_s)
        else:
            person = await self._of_profile(provider, access_token)
        return SignIn(person, access_token, tokens.get("refresh_token"))

    async def verified_claims(
        self, provider: Provider, token: str, *, now_s: float
    ) -> tuple[dict[str, Any], id_tokens.Header]:
        """Of an id_token to this app, all but its nonce. Raises OAuthError and

        ProviderUnreachableError, OAuthProviderNotSupportedError for one without id_tokens.
        """
        header = id_tokens.read_header(token)
        issuers, jwks_uri = await self._keys_of(provider)
        key = await self._discovery.key(jwks_uri, header)
        claims = id_tokens.claims_of(token, header, key)
        id_tokens.check(claims, issuers=issuers, client_ids=provider.client_ids, now_s=now_s)
        return claims, header

    async def _reach(self, provider: Provider) -> _Reached:
        given = provider.endpoints
        if given is not None:
            client_auth = provider.known.client_auth or "post"
            return _Reached(given.authorize, given.token, client_auth, None)
        metadata = await self._discovery.metadata(provider)
        if metadata.authorization_endpoint is None or metadata.token_endpoint is None:
            raise ProviderUnreachableError("the provider's discovery tells no endpoints")
        self._http.check(metadata.authorization_endpoint)
        client_auth = provider.known.client_auth or metadata.client_auth
        return _Reached(
            metadata.authorization_endpoint, metadata.token_endpoint, client_auth, metadata
        )

    async def _keys_of(self, provider: Provider) -> tuple[set[str], str]:
        known = provider.known
        if provider.issuer is None:
            raise OAuthProviderNotSupportedError("the provider has no id_tokens")
        if known.jwks_uri is not None and provider.is_well_known:
            return {provider.issuer}, known.jwks_uri
        metadata = await self._discovery.metadata(provider)
        return {metadata.issuer, *known.accepted_issuers}, metadata.jwks_uri

    async def _of_id_token(
        self,
        provider: Provider,
        metadata: Metadata,
        tokens: Mapping[str, str],
        trip: Trip,
        now_s: float,
    ) -> Identity:
        token = tokens.get("id_token")
        if token is None:
            raise BadIdTokenError("the provider sent no id_token")
        claims, header = await self.verified_claims(provider, token, now_s=now_s)
        if provider.known.has_nonce:
            id_tokens.check_nonce(claims, trip.nonce)
        id_tokens.check_access_token(claims, header, tokens["access_token"])
        person = profiles.of_claims(provider, claims)
        userinfo = metadata.userinfo_endpoint
        # Azure's tells of an address what its id_token would not.
        if person.email is None and userinfo is not None and provider.known.profile == "oidc":
            answer = await self._http.get(userinfo, headers=_bearer(tokens["access_token"]))
            more = answer if isinstance(answer, dict) else {}
            person = profiles.of_claims(provider, merged(claims, more))
        return person

    async def _of_profile(self, provider: Provider, access_token: str) -> Identity:
        assert provider.endpoints is not None
        url, headers = provider.endpoints.profile, _bearer(access_token)
        emails = None
        if provider.known.profile == "facebook":
            url += f"&appsecret_proof={_proof(provider, access_token)}"
        user = await self._http.get(url, headers=headers)
        if provider.known.profile == "github":
            emails = await self._http.get(f"{url}/emails", headers=headers)
        return profiles.of_profile(provider, user, emails)


def read_scopes(text: str) -> list[str]:
    """Separated by spaces or commas. Raises InvalidAuthBodyError."""
    scopes = re.split(r"[ ,]+", text.strip(" ,")) if text.strip(" ,") else []
    if len(scopes) > _SCOPE_COUNT_MAX or not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise InvalidAuthBodyError("scopes are words separated by spaces")
    return scopes


def _tokens(answer: object) -> dict[str, str]:
    """Of the token endpoint. Raises ProviderRefusedError, ProviderUnreachableError."""
    if not isinstance(answer, dict):
        raise ProviderUnreachableError("the provider's answer to the code cannot be read")
    if answer.get("error"):
        # What it says may hold the code; its name of the error does not.
        name = answer["error"] if isinstance(answer["error"], str) else "server_error"
        raise ProviderRefusedError(
            f"the provider refused the code: {name[:50]!a}", error="server_error"
        )
    names = ("access_token", "refresh_token", "id_token")
    tokens = {
        name: value
        for name in names
        if isinstance(value := answer.get(name), str) and len(value) <= TOKEN_LENGTH_MAX
    }
    if "access_token" not in tokens:
        raise ProviderUnreachableError("the provider sent no access token")
    return tokens


def _authenticate(
    provider: Provider,
    client_auth: ClientAuth,
    form: dict[str, str],
    headers: dict[str, str],
    now_s: float,
) -> None:
    """RFC 6749, section 2.3.1."""
    settings = provider.settings
    secret = settings.client_secret.text if settings.client_secret is not None else None
    if secret is not None and "team_id" in settings.options and "key_id" in settings.options:
        secret = _apple_secret(provider, secret, now_s)
    if secret is not None and client_auth == "basic":
        pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return
    form["client_id"] = settings.client_id
    if secret is not None:
        form["client_secret"] = secret


def _apple_secret(provider: Provider, private_key: str, now_s: float) -> str:
    """A token under Apple's key of the app, made for this one request. Raises OAuthError.

    https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret
    """
    options = provider.settings.options
    claims = {
        "iss": options["team_id"],
        "iat": int(now_s),
        "exp": int(now_s) + _APPLE_SECRET_LIFE_S,
        "aud": "https://appleid.apple.com",
        "sub": provider.settings.client_id,
    }
    try:
        return jwt.encode(claims, private_key, "ES256", headers={"kid": options["key_id"]})
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise OAuthProviderNotSupportedError("the provider's private key is none") from error


def _proof(provider: Provider, access_token: str) -> str:
    """https://developers.facebook.com/docs/graph-api/guides/secure-requests"""
    secret = provider.settings.client_secret
    key = "" if secret is None else secret.text
    return hmac.new(key.encode(), access_token.encode(), hashlib.sha256).hexdigest()


def _bearer(access_token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {access_token}"}
