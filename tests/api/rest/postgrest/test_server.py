from typing import Any

import pytest

from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.api.rest.postgrest.server import addresses, local_address


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("!4", "0.0.0.0:3000"),
        ("*4", "0.0.0.0:3000"),
        ("*", "[::]:3000"),
        ("*6", "[::]:3000"),
        ("!6", "[::]:3000"),
        ("127.0.0.1", "127.0.0.1:3000"),
        ("localhost", "localhost:3000"),
        ("::1", "[::1]:3000"),
        ("[::1]", "[::1]:3000"),
    ],
)
def test_hosts_are_written_as_postgrest_does(host: str, address: str) -> None:
    assert addresses(PostgrestConfig(server_host=host), has_ipv6=True) == [address]


@pytest.mark.parametrize("host", ["*", "*6"])
def test_a_machine_without_ipv6_listens_on_ipv4(host: str) -> None:
    assert addresses(PostgrestConfig(server_host=host), has_ipv6=False) == ["0.0.0.0:3000"]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"admin_server_port": 3001}, ["127.0.0.1:3000", "127.0.0.1:3001"]),
        (
            {"admin_server_port": 3001, "admin_server_host": "10.0.0.1"},
            ["127.0.0.1:3000", "10.0.0.1:3001"],
        ),
        ({"server_unix_socket": "/run/x"}, ["unix:/run/x"]),
        (
            {"server_unix_socket": "/run/x", "admin_server_port": 3001},
            ["unix:/run/x", "127.0.0.1:3001"],
        ),
        (
            {"admin_server_unix_socket": "/run/y", "admin_server_port": 3001},
            ["127.0.0.1:3000", "unix:/run/y"],
        ),
    ],
)
def test_the_admin_server_has_an_address_of_its_own(
    settings: dict[str, Any], found: list[str]
) -> None:
    config = PostgrestConfig(server_host="127.0.0.1", **settings)
    assert addresses(config, has_ipv6=True) == found


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("!4", "127.0.0.1:1"),
        ("*", "127.0.0.1:1"),
        ("!6", "[::1]:1"),
        ("example.com", "example.com:1"),
        ("::2", "[::2]:1"),
    ],
)
def test_an_address_that_listens_is_reached_from_here(host: str, address: str) -> None:
    assert local_address(host, 1) == address
