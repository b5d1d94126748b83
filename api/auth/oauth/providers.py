"""The providers that are known by name, and any other by its issuer. Pure.

Of a known one the app's settings need a client id and secret. `issuer` makes a provider of any name
one by discovery; `options` are what one kind alone needs:

    url      where a GitHub, GitLab or other server of one's own is; default the public one
    tenant   Azure's tenant, `common` by default
    team_id, key_id
             Apple's, with the private key (.p8) as the client secret; without them the secret is
             one that was made beforehand
"""

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from butterbase.api.auth.config import Provider as Settings
from butterbase.api.auth.oauth.errors import ProviderDisabledError

ClientAuth: TypeAlias = Literal["basic", "post"]

AZURE_URL = "https://login.microsoftonline.com"
AZURE_PERSONAL_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""Of Microsoft's own accounts."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_AZURE_SHARED_TENANTS = frozenset({"common", "organizations", "consumers"})


class Endpoints(Struct, frozen=True):
    """Of a provider that is not asked for them. `{url}` is its own address."""

    authorize: str
    token: str
    profile: str
    """What its answer means, profiles.py knows."""


class Known(Struct, frozen=True):
    scopes: tuple[str, ...]
    issuer: str | None = None
    """Of an OIDC provider, which tells the rest by discovery."""
    accepted_issuers: tuple[str, ...] = ()
    """Besides `issuer`."""
    jwks_uri: str | None = None
    """None is what discovery says."""
    endpoints: Endpoints | None = None
    url: str | None = None
    api_url: str | None = None
    """`{api}` in the endpoints; with an own `url` it is there as well."""
    client_auth: ClientAuth | None = None
    """None is what discovery says."""
    has_pkce: bool = True
    has_nonce: bool = True
    is_form_post: bool = False
    """Whether the answer comes as a form: a POST from another site."""
    is_email_always_verified: bool = False
    profile: str = "oidc"
    """How its users are read, a name of profiles.py."""


class Provider(Struct, frozen=True):
    """One that the app may use now."""

    name: str
    known: Known
    settings: Settings
    issuer: str | None
    endpoints: Endpoints | None

    @property
    def is_well_known(self) -> bool:
        """Whether it is where everybody's of that name is."""
        is_moved = self.settings.issuer is not None or "url" in self.settings.options
        return self.known is not _OIDC and not is_moved

    @property
    def callback_path(self) -> str:
        """Where its answers come in.

        The well-known providers share one. Any other has its own, so that none can send a browser
        on to another provider and be taken for that one when it comes back: RFC 9700, 4.4.2.
        """
        return "/callback" if self.is_well_known else f"/callback/{self.name}"

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Whom an id_token may be for."""
        return (self.settings.client_id, *self.settings.additional_client_ids)

    @property
    def scopes(self) -> tuple[str, ...]:
        given = self.settings.scopes
        return self.known.scopes if given is None else given

    @property
    def is_single_tenant(self) -> bool:
        """Of Azure: whether all users are of one organization, which the app has chosen."""
        return self.settings.options.get("tenant", "common") not in _AZURE_SHARED_TENANTS

    def accepts_issuer(self, issuer: str) -> bool:
        """Whether a document of the provider's may say that it is of this issuer."""
        if self.known.profile == "azure":
            # It tells a template, or the id of a tenant that is configured by its name.
            return issuer.startswith(f"{AZURE_URL}/")
        return issuer in (self.issuer, *self.known.accepted_issuers)


_OIDC = Known(scopes=("openid", "email", "profile"))

_X = Known(
    scopes=("users.email", "tweet.read", "users.read", "offline.access"),
    url="https://x.com",
    api_url="https://api.x.com",
    endpoints=Endpoints(
        "{url}/i/oauth2/authorize",
        "{api}/2/oauth2/token",
        "{api}/2/users/me?user.fields=confirmed_email,profile_image_url",
    ),
    client_auth="basic",
    profile="x",
)

KNOWN: Mapping[str, Known] = {
    "apple": Known(
        scopes=("name", "email"),
        issuer="https://appleid.apple.com",
        accepted_issuers=("https://account.apple.com",),
        client_auth="post",
        is_form_post=True,
    ),
    "azure": Known(
        scopes=("openid", "email", "profile"),
        issuer=AZURE_URL + "/{tenant}/v2.0",
        client_auth="post",
        profile="azure",
    ),
    "discord": Known(
        scopes=("email", "identify"),
        url="https://discord.com",
        endpoints=Endpoints(
            "{url}/api/oauth2/authorize", "{url}/api/oauth2/token", "{url}/api/users/@me"
        ),
        profile="discord",
    ),
    "facebook": Known(
        scopes=("email", "public_profile"),
        # Of the tokens of Limited Login; the flow through the browser has none.
        issuer="https://www.facebook.com",
        jwks_uri="https://www.facebook.com/.well-known/oauth/openid/jwks/",
        url="https://www.facebook.com",
        api_url="https://graph.facebook.com",
        endpoints=Endpoints(
            "{url}/dialog/oauth",
            "{api}/oauth/access_token",
            "{api}/me?fields=id,email,first_name,last_name,name,picture",
        ),
        is_email_always_verified=True,
        profile="facebook",
    ),
    "github": Known(
        scopes=("user:email",),
        url="https://github.com",
        api_url="https://api.github.com",
        endpoints=Endpoints(
            "{url}/login/oauth/authorize", "{url}/login/oauth/access_token", "{api}/user"
        ),
        profile="github",
    ),
    "gitlab": Known(
        scopes=("read_user",),
        url="https://gitlab.com",
        endpoints=Endpoints("{url}/oauth/authorize", "{url}/oauth/token", "{url}/api/v4/user"),
        profile="gitlab",
    ),
    "google": Known(
        scopes=("openid", "email", "profile"),
        issuer="https://accounts.google.com",
        accepted_issuers=("accounts.google.com",),
        client_auth="post",
    ),
    "keycloak": _OIDC,
    "linkedin_oidc": Known(
        scopes=("openid", "profile", "email"),
        issuer="https://www.linkedin.com/oauth",
        accepted_issuers=("https://www.linkedin.com",),
        client_auth="post",
        # It answers invalid_client to a verifier, and repeats no nonce.
        has_pkce=False,
        has_nonce=False,
    ),
    # The name of its first protocol; the second one is spoken for both.
    "twitter": _X,
    "x": _X,
}


def find_provider(name: str, configured: Mapping[str, Settings]) -> Provider:
    """Raises ProviderDisabledError."""
    settings = configured.get(name.lower())
    if settings is None or not settings.is_enabled:
        raise ProviderDisabledError
    name = name.lower()
    known = KNOWN.get(name, _OIDC)
    issuer = settings.issuer or _of_tenant(known.issuer, settings)
    if settings.issuer is not None and settings.issuer != known.issuer:
        # Elsewhere it is one like any other: nothing is known of it but what it says.
        known = _OIDC
    endpoints = _endpoints(known, settings)
    if issuer is None and endpoints is None:
        raise ProviderDisabledError(f"Unsupported provider: {name!a} needs an issuer")
    return Provider(name, known, settings, issuer, endpoints)


def find_by_issuer(issuer: str, configured: Mapping[str, Settings]) -> Provider:
    """Of an id_token that comes with its issuer alone. Raises ProviderDisabledError."""
    for name in configured:
        try:
            provider = find_provider(name, configured)
        except ProviderDisabledError:
            continue
        if issuer in (provider.issuer, *provider.known.accepted_issuers):
            return provider
    raise ProviderDisabledError


def _of_tenant(issuer: str | None, settings: Settings) -> str | None:
    if issuer is None or "{tenant}" not in issuer:
        return issuer
    tenant = settings.options.get("tenant", "common")
    if not _TENANT.fullmatch(tenant):
        raise ProviderDisabledError(f"Unsupported provider: {tenant!a} is no tenant")
    return issuer.replace("{tenant}", tenant)


def _endpoints(known: Known, settings: Settings) -> Endpoints | None:
    if known.endpoints is None:
        return None
    own = settings.options.get("url", "").rstrip("/")
    url = own or known.url or ""
    api = own or known.api_url or url
    if own and known.profile == "github":
        api = f"{own}/api/v3"
    return Endpoints(
        *(
            text.replace("{url}", url).replace("{api}", api)
            for text in (known.endpoints.authorize, known.endpoints.token, known.endpoints.profile)
        )
    )
