"""Each provider's answer about a user, in the shape that its documentation gives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.config import Provider as Settings
from butterbase.api.auth.errors import AuthError
from butterbase.api.auth.oauth import profiles
from butterbase.api.auth.oauth.errors import BadIdTokenError, OAuthError
from butterbase.api.auth.oauth.identity import Identity, merged
from butterbase.api.auth.oauth.providers import (
    AZURE_PERSONAL_TENANT,
    Provider,
    find_provider,
)

ANA = "ana@example.com"


def provider(name: str, **settings: Any) -> Provider:
    return find_provider(name, {name: Settings("client", **settings)})


def told(person: Identity) -> tuple[str, str | None, bool]:
    return person.subject, person.email, person.is_email_verified


GITHUB = {
    "login": "ana-gh",
    "id": 583231,
    "node_id": "MDQ6VXNlcjU4MzIzMQ==",
    "avatar_url": "https://avatars.githubusercontent.com/u/583231?v=4",
    "type": "User",
    "site_admin": False,
    "name": "Ana Lovelace",
    "company": None,
    "email": "public@example.com",
    "two_factor_authentication": True,
}


def test_github_tells_addresses_apart() -> None:
    emails = [
        {"email": "old@example.com", "primary": False, "verified": True, "visibility": None},
        {"email": ANA, "primary": True, "verified": True, "visibility": "private"},
        {"email": "new@example.com", "primary": False, "verified": False, "visibility": None},
    ]
    person = profiles.of_profile(provider("github"), GITHUB, emails)
    assert told(person) == ("583231", ANA, True)
    assert person.data == {
        "iss": "https://api.github.com",
        "sub": "583231",
        "provider_id": "583231",
        "name": "Ana Lovelace",
        "full_name": "Ana Lovelace",
        "user_name": "ana-gh",
        "preferred_username": "ana-gh",
        "avatar_url": "https://avatars.githubusercontent.com/u/583231?v=4",
        "email": ANA,
        "email_verified": True,
        "phone_verified": False,
    }


@pytest.mark.parametrize(
    ("emails", "expected"),
    [
        ([{"email": ANA, "primary": True, "verified": False}], (ANA, False)),
        (
            [
                {"email": "a@example.com", "primary": True, "verified": False},
                {"email": ANA, "primary": False, "verified": True},
            ],
            (ANA, True),
        ),
        ([{"email": ANA, "primary": True, "verified": "true"}], (ANA, False)),
        ([{"email": ANA, "primary": True}], (ANA, False)),
        ([{"email": None, "primary": True, "verified": True}], (None, False)),
        ([], (None, False)),
        (None, (None, False)),
        ({"message": "Requires authentication"}, (None, False)),
        ([None, ANA], (None, False)),
    ],
)
def test_github_says_of_each_address_whether_it_is_verified(
    emails: object, expected: tuple[str | None, bool]
) -> None:
    """The address of the public profile, which anybody may write, is not asked."""
    person = profiles.of_profile(provider("github"), GITHUB, emails)
    assert (person.email, person.is_email_verified) == expected


GITLAB = {
    "id": 42,
    "username": "ana-gl",
    "email": ANA,
    "name": "Ana",
    "state": "active",
    "avatar_url": "https://gitlab.com/uploads/-/system/user/avatar/42/avatar.png",
    "confirmed_at": "2020-05-23T09:05:22.801Z",
    "two_factor_enabled": True,
}


def test_gitlab_confirms_addresses() -> None:
    person = profiles.of_profile(provider("gitlab"), GITLAB)
    assert told(person) == ("42", ANA, True)
    assert (person.data["user_name"], person.data["iss"]) == ("ana-gl", "https://gitlab.com")
    for missing in (None, ""):
        person = profiles.of_profile(provider("gitlab"), {**GITLAB, "confirmed_at": missing})
        assert told(person) == ("42", ANA, False)


DISCORD = {
    "id": "80351110224678912",
    "username": "ana",
    "discriminator": "0",
    "global_name": "Ana L.",
    "avatar": "8342729096ea3675442027381ff50dfe",
    "verified": True,
    "email": ANA,
    "flags": 64,
    "premium_type": 1,
}


def test_discord_verifies_addresses() -> None:
    person = profiles.of_profile(provider("discord"), DISCORD)
    assert told(person) == ("80351110224678912", ANA, True)
    assert (person.data["name"], person.data["full_name"]) == ("ana", "ana")
    assert person.data["custom_claims"] == {"global_name": "Ana L."}
    assert person.data["avatar_url"] == (
        "https://cdn.discordapp.com/avatars/80351110224678912/8342729096ea3675442027381ff50dfe.png"
    )
    old = {**DISCORD, "discriminator": "1337", "avatar": "a_834", "verified": False}
    person = profiles.of_profile(provider("discord"), old)
    assert (person.data["name"], person.is_email_verified) == ("ana#1337", False)
    assert person.data["picture"].endswith("/a_834.gif")
    person = profiles.of_profile(provider("discord"), {**DISCORD, "avatar": None, "verified": 1})
    assert "picture" not in person.data
    assert person.is_email_verified is False


def test_facebook_tells_confirmed_addresses() -> None:
    user = {
        "id": "10158123456789012",
        "email": ANA,
        "first_name": "Ana",
        "last_name": "L",
        "name": "Ana L",
        "picture": {
            "data": {
                "height": 50,
                "is_silhouette": False,
                "url": "https://platform-lookaside.fbsbx.com/x",
                "width": 50,
            }
        },
    }
    person = profiles.of_profile(provider("facebook"), user)
    assert told(person) == ("10158123456789012", ANA, True)
    assert person.data["picture"] == "https://platform-lookaside.fbsbx.com/x"
    del user["email"]
    assert told(profiles.of_profile(provider("facebook"), user)) == (user["id"], None, False)
    claims = {"iss": "https://www.facebook.com", "sub": "1", "email": ANA, "name": "Ana"}
    assert told(profiles.of_claims(provider("facebook"), claims)) == ("1", ANA, True)


@pytest.mark.parametrize("name", ["x", "twitter"])
def test_x_tells_confirmed_addresses(name: str) -> None:
    answer = {
        "data": {
            "id": "2244994945",
            "username": "ana",
            "name": "Ana",
            "profile_image_url": "https://pbs.twimg.com/x_normal.jpg",
            "confirmed_email": ANA,
        }
    }
    person = profiles.of_profile(provider(name), answer)
    assert told(person) == ("2244994945", ANA, True)
    assert person.data["user_name"] == "ana"
    del answer["data"]["confirmed_email"]
    assert told(profiles.of_profile(provider(name), answer)) == ("2244994945", None, False)
    with pytest.raises(OAuthError):
        profiles.of_profile(provider(name), {"errors": [{"title": "Unauthorized"}]})


GOOGLE = {
    "iss": "https://accounts.google.com",
    "azp": "client",
    "aud": "client",
    "sub": "110169484474386276334",
    "hd": "example.com",
    "email": ANA,
    "email_verified": True,
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
    "name": "Ana Lovelace",
    "picture": "https://lh3.googleusercontent.com/a/x",
    "given_name": "Ana",
    "family_name": "Lovelace",
    "iat": 1,
    "exp": 2,
}


def test_google_is_as_openid_says() -> None:
    person = profiles.of_claims(provider("google"), GOOGLE)
    assert told(person) == ("110169484474386276334", ANA, True)
    assert person.data == {
        "iss": "https://accounts.google.com",
        "sub": "110169484474386276334",
        "provider_id": "110169484474386276334",
        "name": "Ana Lovelace",
        "full_name": "Ana Lovelace",
        "given_name": "Ana",
        "family_name": "Lovelace",
        "picture": "https://lh3.googleusercontent.com/a/x",
        "avatar_url": "https://lh3.googleusercontent.com/a/x",
        "email": ANA,
        "email_verified": True,
        "phone_verified": False,
        "custom_claims": {"hd": "example.com"},
    }
    answers: list[object] = [False, "false", None, "no", 0, [], {}]
    for said in answers:
        person = profiles.of_claims(provider("google"), {**GOOGLE, "email_verified": said})
        assert told(person) == (GOOGLE["sub"], ANA, False)


def test_linkedin_is_as_openid_says() -> None:
    claims = {
        "iss": "https://www.linkedin.com/oauth",
        "sub": "782bbtaQ",
        "name": "Ana L",
        "given_name": "Ana",
        "family_name": "L",
        "picture": "https://media.licdn-ei.com/x",
        "locale": {"country": "US", "language": "en"},
        "email": ANA,
        "email_verified": "true",
    }
    person = profiles.of_claims(provider("linkedin_oidc"), claims)
    assert told(person) == ("782bbtaQ", ANA, True)
    assert "locale" not in person.data


APPLE = {
    "iss": "https://appleid.apple.com",
    "aud": "com.example.web",
    "sub": "001234.abcdef.0123",
    "email": "x7k@privaterelay.appleid.com",
    "email_verified": "true",
    "is_private_email": "true",
    "nonce_supported": True,
}


def test_apple_tells_a_name_beside_the_token() -> None:
    person = profiles.of_claims(provider("apple"), APPLE)
    assert told(person) == (APPLE["sub"], APPLE["email"], True)
    assert person.data["custom_claims"] == {"is_private_email": "true"}
    user = {"name": {"firstName": "Ana", "lastName": "L"}, "email": "liar@example.com"}
    named = profiles.with_apple_name(person, user)
    assert (named.data["name"], named.data["full_name"]) == ("Ana L", "Ana L")
    # The browser could have written that.
    assert told(named) == told(person)
    assert "liar" not in str(named.data)
    odds: list[object] = [{}, None, [], {"name": "Ana"}, {"name": {}}, {"name": {"firstName": 1}}]
    for odd in odds:
        assert profiles.with_apple_name(person, odd) == person


AZURE = {
    "iss": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
    "tid": "11111111-2222-3333-4444-555555555555",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "oid": "00000000-0000-0000-66f3-3332eca7ea81",
    "name": "Ana",
    "preferred_username": "ana@contoso.example",
    "email": ANA,
}


@pytest.mark.parametrize(
    ("options", "claims", "expected"),
    [
        ({}, {}, False),
        ({}, {"email_verified": True}, False),
        ({}, {"xms_edov": True}, True),
        ({}, {"xms_edov": "1"}, True),
        ({}, {"xms_edov": 1}, True),
        ({}, {"xms_edov": False}, False),
        ({}, {"xms_edov": "0"}, False),
        ({}, {"tid": AZURE_PERSONAL_TENANT}, True),
        ({}, {"tid": AZURE_PERSONAL_TENANT, "xms_edov": False}, False),
        ({"tenant": "organizations"}, {}, False),
        ({"tenant": "common"}, {}, False),
        ({"tenant": AZURE["tid"]}, {}, True),
        ({"tenant": AZURE["tid"]}, {"xms_edov": "false"}, False),
    ],
)
def test_an_azure_address_is_what_an_administrator_writes(
    options: dict[str, str], claims: dict[str, Any], expected: bool
) -> None:
    """nOAuth: with a tenant of their own, anybody has a user of any address."""
    person = profiles.of_claims(provider("azure", options=options), {**AZURE, **claims})
    assert told(person) == (AZURE["sub"], ANA, expected)


@pytest.mark.parametrize("subject", [None, "", 0.5, True, [], "x" * 256, "a\0b", "\ud800"])
def test_without_an_id_there_is_nobody(subject: object) -> None:
    with pytest.raises(OAuthError):
        profiles.of_claims(provider("google"), {**GOOGLE, "sub": subject})
    with pytest.raises(OAuthError):
        profiles.of_profile(provider("github"), {**GITHUB, "id": subject}, [])


@pytest.mark.parametrize("email", ["", "ana", "a@b@c", "ana@example.com\nx", 7, ["x"], "@", None])
def test_what_is_no_address_is_none(email: object) -> None:
    person = profiles.of_claims(provider("google"), {**GOOGLE, "email": email})
    assert (person.email, person.is_email_verified) == (None, False)
    assert person.data["email_verified"] is False
    assert "email" not in person.data


@pytest.mark.parametrize("answer", [None, [], "x", 7])
def test_an_answer_that_is_no_object_is_nobody(answer: object) -> None:
    with pytest.raises(OAuthError):
        profiles.of_profile(provider("github"), answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(["github", "gitlab", "discord", "facebook", "x"]), st.data())
def test_any_answer_is_somebody_or_refused(name: str, data: st.DataObject) -> None:
    names = ["id", "email", "avatar", "username", "discriminator", "picture", "data", "name"]
    user = data.draw(JSON | st.dictionaries(st.sampled_from(names), JSON))
    try:
        person = profiles.of_profile(provider(name), user, data.draw(JSON))
    except AuthError:
        return
    assert person.subject
    assert not person.is_email_verified or person.email


def test_userinfo_adds_to_an_id_token_of_the_same_user() -> None:
    token = {"sub": "1", "name": "Ana", "email_verified": True}
    userinfo = {"sub": "1", "name": "Mallory", "email": ANA, "picture": "p"}
    both = merged(token, userinfo)
    assert (both["name"], both["picture"], both["email"]) == ("Ana", "p", ANA)
    # Of this very address, nobody has said that it is verified.
    assert both["email_verified"] is None
    for other in ({}, {"sub": "2"}, {"sub": None}, {"sub": 1}):
        with pytest.raises(BadIdTokenError):
            merged(token, {**userinfo, "sub": None, **other})
