"""The providers that an app may use, and where they are."""

import pytest

from butterbase.api.auth.config import Provider as Settings
from butterbase.api.auth.oauth.errors import ProviderDisabledError
from butterbase.api.auth.oauth.providers import KNOWN, find_by_issuer
from tests.api.auth.oauth.test_profiles import provider


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_each_known_provider_is_reached_over_https(name: str) -> None:
    found = provider(name, issuer="https://sso.example" if name == "keycloak" else None)
    addresses = [found.issuer or "https:"]
    if found.endpoints is not None:
        endpoints = found.endpoints
        addresses += [endpoints.authorize, endpoints.token, endpoints.profile]
    assert all(address.startswith("https:") and "{" not in address for address in addresses)
    assert found.callback_path == ("/callback/keycloak" if name == "keycloak" else "/callback")


def test_an_own_server_has_its_own_callback() -> None:
    """What an administrator set up cannot be taken for a provider that everybody knows."""
    own = provider("github", options={"url": "https://git.example/"})
    assert own.callback_path == "/callback/github"
    assert own.endpoints is not None
    assert own.endpoints.profile == "https://git.example/api/v3/user"
    moved = provider("google", issuer="https://sso.example")
    assert (moved.callback_path, moved.issuer) == ("/callback/google", "https://sso.example")
    assert moved.known.accepted_issuers == ()
    assert not moved.accepts_issuer("https://accounts.google.com")


@pytest.mark.parametrize("tenant", ["", "a/b", "../x", "a?b", "evil.example/", "{tenant}", "a b"])
def test_a_tenant_is_a_name(tenant: str) -> None:
    with pytest.raises(ProviderDisabledError):
        provider("azure", options={"tenant": tenant})


def test_azure_issuers_are_azures() -> None:
    azure = provider("azure")
    assert azure.accepts_issuer("https://login.microsoftonline.com/{tenantid}/v2.0")
    assert not azure.accepts_issuer("https://login.microsoftonline.com.evil.example/x/v2.0")
    assert not azure.accepts_issuer("https://evil.example")


def test_a_provider_of_an_unknown_name_needs_an_issuer() -> None:
    with pytest.raises(ProviderDisabledError, match="needs an issuer"):
        provider("acme")
    with pytest.raises(ProviderDisabledError):
        provider("google", is_enabled=False)
    assert provider("acme", issuer="https://sso.example").issuer == "https://sso.example"


def test_an_issuer_is_of_a_provider_that_is_enabled() -> None:
    configured = {
        "bare": Settings("x"),
        "off": Settings("x", is_enabled=False, issuer="https://off.example"),
        "google": Settings("x"),
    }
    assert find_by_issuer("accounts.google.com", configured).name == "google"
    for issuer in ("https://off.example", "https://evil.example", ""):
        with pytest.raises(ProviderDisabledError):
            find_by_issuer(issuer, configured)
