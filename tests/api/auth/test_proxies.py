import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.proxies import Proxies, subscriber_of
from butterbase.api.settings import ApiSettings
from butterbase.sql.errors import SettingError
from tests.api.conftest import running
from tests.installation import Installation

PROXIES = Proxies("127.0.0.1, ::1, 10.0.0.0/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", None, "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "192.0.2.66, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("10.1.2.3", "made up, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "198.51.100.1, made up", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.4", "10.1.2.4"),
        ("::ffff:10.1.2.3", "2001:db8::1", "2001:db8::1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_nearest_that_is_no_proxy(
    peer: str, forwarded: str | None, client: str
) -> None:
    assert PROXIES.client_of(peer, forwarded) == client


@given(st.text(), st.text() | st.none())
def test_any_header_is_read(peer: str, forwarded: str | None) -> None:
    assert isinstance(PROXIES.client_of(peer, forwarded), str)
    assert subscriber_of(peer) is not None


@pytest.mark.parametrize("trusted", ["nobody", "10.0.0.0/40", "127.0.0.1;::1"])
def test_what_is_no_address_is_refused(trusted: str) -> None:
    with pytest.raises(SettingError, match="trusted_proxies"):
        Proxies(trusted)


def test_an_ipv6_subscriber_is_one_whatever_the_address() -> None:
    assert subscriber_of("2001:db8:1:2::3") == subscriber_of("2001:db8:1:2:ffff::1")
    assert subscriber_of("2001:db8:1:2::3") != subscriber_of("2001:db8:1:3::3")
    assert subscriber_of("203.0.113.7") != subscriber_of("203.0.113.8")


@pytest.mark.parametrize(("trusted", "is_shared"), [("127.0.0.1", False), ("", True)])
async def test_behind_a_proxy_each_client_has_its_own_limit(
    installation: Installation, trusted: str, is_shared: bool
) -> None:
    async with running(installation, ApiSettings(trusted_proxies=trusted)) as api:
        limits = {"rate_limits": {"token": {"count": 1, "per_s": 3600, "burst": 1}}}
        await api.client.put("/auth/v1/admin/settings", json=limits, headers=api.service)
        statuses = []
        for client in ("198.51.100.1", "198.51.100.2"):
            answer = await api.client.post(
                "/auth/v1/token?grant_type=password",
                json={"email": f"{client}@example.com", "password": "correct horse"},
                headers=api.anon | {"X-Forwarded-For": client},
            )
            statuses.append(answer.status_code)
    assert statuses == [400, 429 if is_shared else 400]
