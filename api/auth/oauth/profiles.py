"""Users as each provider tells of them, to Identity. Pure.

Where a provider says that an address is verified, or does not, is what matters here:

    azure      xms_edov; without it, personal accounts, and tenants that the app has chosen. An
               Azure address is whatever a tenant's administrator writes.
               https://learn.microsoft.com/entra/identity-platform/migrate-off-email-claim-authorization
    discord    verified
    facebook   tells only addresses that are
    github     verified, of each address
    gitlab     confirmed_at
    x          confirmed_email
    others     email_verified
"""

from collections.abc import Mapping, Sequence
from typing import Any

from butterbase.api.auth.oauth.errors import OAuthError
from butterbase.api.auth.oauth.identity import Identity, from_oidc, identity
from butterbase.api.auth.oauth.providers import AZURE_PERSONAL_TENANT, Provider


def of_claims(provider: Provider, claims: Mapping[str, Any]) -> Identity:
    """Of the claims of an id_token that was verified. Raises OAuthError."""
    if provider.known.profile == "azure":
        return from_oidc(claims, is_email_verified=_is_verified_by_azure(provider, claims))
    if provider.known.is_email_always_verified:
        return from_oidc(claims, is_email_verified=True)
    return from_oidc(claims)


def of_profile(provider: Provider, user: object, emails: object = None) -> Identity:
    """Of the answer of the profile's endpoint, and GitHub's addresses. Raises OAuthError."""
    if not isinstance(user, dict):
        raise OAuthError("the provider told nothing of the user")
    assert provider.endpoints is not None
    read = _READERS[provider.known.profile]
    return read(_origin(provider.endpoints.profile), user, emails)


def with_apple_name(person: Identity, user: object) -> Identity:
    """Apple tells the name once, beside the code: as the browser passes it on, so not proven."""
    name = user.get("name") if isinstance(user, dict) else None
    if not isinstance(name, dict):
        return person
    parts = (name.get("firstName"), name.get("lastName"))
    full_name = " ".join(part for part in parts if isinstance(part, str) and part)
    if not full_name:
        return person
    named = identity("", person.subject, claims={"name": full_name, "full_name": full_name})
    data = {**person.data, **{key: named.data[key] for key in named.data if "name" in key}}
    return Identity(person.subject, person.email, person.is_email_verified, data)


def _is_verified_by_azure(provider: Provider, claims: Mapping[str, Any]) -> bool:
    owner_verified = claims.get("xms_edov")
    if owner_verified is not None:
        return owner_verified in (True, 1, "1", "true", "True")
    return provider.is_single_tenant or claims.get("tid") == AZURE_PERSONAL_TENANT


def _github(issuer: str, user: dict[str, Any], emails: object) -> Identity:
    listed = emails if isinstance(emails, list) else []
    address, is_verified = _best([entry for entry in listed if isinstance(entry, dict)])
    return identity(
        issuer,
        user.get("id"),
        email=address,
        is_email_verified=is_verified,
        claims={
            "name": user.get("name"),
            "full_name": user.get("name"),
            "user_name": user.get("login"),
            "preferred_username": user.get("login"),
            "avatar_url": user.get("avatar_url"),
        },
    )


def _best(emails: Sequence[Mapping[str, Any]]) -> tuple[object, bool]:
    """The primary address where it is verified, else another that is, else the primary one."""
    ranked = sorted(
        emails,
        key=lambda entry: (entry.get("verified") is True, entry.get("primary") is True),
        reverse=True,
    )
    return (ranked[0].get("email"), ranked[0].get("verified") is True) if ranked else (None, False)


def _gitlab(issuer: str, user: dict[str, Any], _emails: object) -> Identity:
    return identity(
        issuer,
        user.get("id"),
        email=user.get("email"),
        is_email_verified=bool(user.get("confirmed_at")),
        claims={
            "name": user.get("name"),
            "full_name": user.get("name"),
            "user_name": user.get("username"),
            "picture": user.get("avatar_url"),
            "avatar_url": user.get("avatar_url"),
        },
    )


def _discord(issuer: str, user: dict[str, Any], _emails: object) -> Identity:
    picture = None
    if isinstance(user.get("avatar"), str):
        kind = "gif" if user["avatar"].startswith("a_") else "png"
        picture = f"https://cdn.discordapp.com/avatars/{user.get('id')}/{user['avatar']}.{kind}"
    username, discriminator = user.get("username"), user.get("discriminator")
    has_number = discriminator not in (None, "", "0")
    return identity(
        issuer,
        user.get("id"),
        email=user.get("email"),
        is_email_verified=user.get("verified") is True,
        claims={
            "name": f"{username}#{discriminator}" if has_number else username,
            "full_name": username,
            "picture": picture,
            "avatar_url": picture,
        },
        custom_claims={"global_name": user.get("global_name")},
    )


def _facebook(issuer: str, user: dict[str, Any], _emails: object) -> Identity:
    picture = user.get("picture")
    data = picture.get("data") if isinstance(picture, dict) else None
    url = data.get("url") if isinstance(data, dict) else None
    return identity(
        issuer,
        user.get("id"),
        email=user.get("email"),
        is_email_verified=True,
        claims={
            "name": user.get("name"),
            "full_name": user.get("name"),
            "nickname": user.get("name"),
            "picture": url,
            "avatar_url": url,
        },
    )


def _x(issuer: str, answer: dict[str, Any], _emails: object) -> Identity:
    told = answer.get("data")
    user: dict[str, Any] = told if isinstance(told, dict) else {}
    return identity(
        issuer,
        user.get("id"),
        email=user.get("confirmed_email"),
        is_email_verified=True,
        claims={
            "name": user.get("name"),
            "full_name": user.get("name"),
            "user_name": user.get("username"),
            "preferred_username": user.get("username"),
            "picture": user.get("profile_image_url"),
            "avatar_url": user.get("profile_image_url"),
        },
    )


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


_READERS = {
    "discord": _discord,
    "facebook": _facebook,
    "github": _github,
    "gitlab": _gitlab,
    "x": _x,
}
