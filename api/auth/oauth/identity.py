"""Whom a provider says has signed in: from its answers to one form. Pure.

The members are those of Supabase's `identity_data`. An e-mail address is verified only where the
provider says so of this very address.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from butterbase.api.auth.errors import EmailInvalidError
from butterbase.api.auth.oauth.errors import BadIdTokenError, OAuthError
from butterbase.api.auth.policy import check_email

TEXT_LENGTH_MAX: Final = 1000
SUBJECT_LENGTH_MAX: Final = 255
"""OpenID Connect Core 1.0, section 2."""


class Identity(Struct, frozen=True):
    """An account at a provider."""

    subject: str
    """The provider's id of it, which is never another's."""
    email: str | None = None
    is_email_verified: bool = False
    data: dict[str, Any] = {}
    """What is kept of it and shown to the user."""

    @property
    def verified_email(self) -> str | None:
        return self.email if self.is_email_verified else None


def identity(
    issuer: str,
    subject: object,
    *,
    email: object = None,
    is_email_verified: bool = False,
    claims: Mapping[str, object] | None = None,
    custom_claims: Mapping[str, object] | None = None,
) -> Identity:
    """Of what a provider told; texts that are too long, and what is no text, are left out.

    Raises OAuthError when there is no subject.
    """
    subject = _subject(subject)
    address = _address(email)
    is_verified = address is not None and is_email_verified
    data: dict[str, Any] = {"iss": issuer, "sub": subject, "provider_id": subject}
    data |= _texts(claims or {})
    if address is not None:
        data["email"] = address
    data |= {"email_verified": is_verified, "phone_verified": False}
    if kept := _values(custom_claims or {}):
        data["custom_claims"] = kept
    return Identity(subject, address, is_verified, data)


def from_oidc(claims: Mapping[str, Any], *, is_email_verified: bool | None = None) -> Identity:
    """Of an id_token's or userinfo's claims. OpenID Connect Core 1.0, section 5.1.

    `is_email_verified` goes before the claim. Raises OAuthError.
    """
    told = claims.get("email_verified") in (True, "true", "True", "1")
    names = (claims.get("given_name"), claims.get("family_name"))
    joined = " ".join(name for name in names if isinstance(name, str) and name)
    full_name = claims.get("name") or joined or None
    return identity(
        str(claims.get("iss") or ""),
        claims.get("sub"),
        email=claims.get("email"),
        is_email_verified=told if is_email_verified is None else is_email_verified,
        claims={
            "name": full_name,
            "full_name": full_name,
            "given_name": claims.get("given_name"),
            "family_name": claims.get("family_name"),
            "nickname": claims.get("nickname"),
            "preferred_username": claims.get("preferred_username"),
            "picture": claims.get("picture"),
            "avatar_url": claims.get("picture"),
            "locale": claims.get("locale"),
        },
        custom_claims={"hd": claims.get("hd"), "is_private_email": claims.get("is_private_email")},
    )


def merged(id_token: Mapping[str, Any], userinfo: Mapping[str, Any]) -> dict[str, Any]:
    """What userinfo adds to an id_token of the same subject. Raises BadIdTokenError.

    OpenID Connect Core 1.0, section 5.3.2: of another subject it must not be used. An address and
    whether it is verified are never taken from two answers.
    """
    if userinfo.get("sub") != id_token.get("sub"):
        raise BadIdTokenError("the provider's userinfo is of another user than its id_token")
    about_email = ("email", "email_verified")
    source = userinfo if userinfo.get("email") else id_token
    return {**userinfo, **id_token, **{name: source.get(name) for name in about_email}}


def _subject(subject: object) -> str:
    if isinstance(subject, int) and not isinstance(subject, bool):
        subject = str(subject)
    # Not cleaned: two ids must never become one.
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= SUBJECT_LENGTH_MAX
        or subject != _clean(subject)
    ):
        raise OAuthError("the provider told no id of the user")
    return subject


def _address(email: object) -> str | None:
    """What is no address is none."""
    if not isinstance(email, str):
        return None
    try:
        return check_email(email)
    except EmailInvalidError:
        return None


def _texts(claims: Mapping[str, object]) -> dict[str, str]:
    return {
        name: _clean(value)
        for name, value in claims.items()
        if isinstance(value, str) and 0 < len(value) <= TEXT_LENGTH_MAX
    }


def _values(claims: Mapping[str, object]) -> dict[str, object]:
    booleans = {name: value for name, value in claims.items() if isinstance(value, bool)}
    return {**_texts(claims), **booleans}


def _clean(text: str) -> str:
    """Postgres text holds neither a NUL nor half a surrogate pair."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
