import pytest

from butterbase.api.functions.runtime.errors import InvalidNetPermissionError
from butterbase.api.functions.runtime.hosts import AllowList, parse_net

COVERED = [
    ("api.example.com", "api.example.com", 443),
    ("api.example.com", "API.Example.COM.", 80),
    ("api.example.com:8443", "api.example.com", 8443),
    ("*.example.com", "a.example.com", 443),
    ("*.example.com", "a.b.example.com", 443),
    ("*", "anything.test", 1),
    ("*:443", "anything.test", 443),
    ("[2001:db8::1]:80", "[2001:db8::1]", 80),
    ("192.0.2.1", "192.0.2.1", 80),
    ("bücher.example", "xn--bcher-kva.example", 443),
]
NOT_COVERED = [
    ("api.example.com", "example.com", 443),
    ("api.example.com", "api.example.com.evil.test", 443),
    ("api.example.com", "xapi.example.com", 443),
    ("api.example.com:443", "api.example.com", 80),
    ("*.example.com", "example.com", 443),
    ("*.example.com", "evilexample.com", 443),
    ("*.example.com", ".example.com", 443),
    ("*:443", "anything.test", 80),
]
INVALID = [
    *("", " ", "https://example.com", "example.com/", "example.com:0", "example.com:65536"),
    *("example.com:x", "a b", "*.com", "*x.com", "x.*.com", "**.example.com", "[::1", "::1"),
    *(
        "[example.com]",
        "-a.com",
        "a-.com",
        "a..b",
        "user@example.com",
        "a" * 64 + ".com",
        "*.",
        "*.0.0.1",
    ),
]


@pytest.mark.parametrize(("rule", "host", "port"), COVERED)
def test_a_rule_covers_a_host(rule: str, host: str, port: int) -> None:
    assert AllowList.parse([rule]).covers(host, port)


@pytest.mark.parametrize(("rule", "host", "port"), NOT_COVERED)
def test_a_rule_does_not_cover_another_host(rule: str, host: str, port: int) -> None:
    assert not AllowList.parse([rule]).covers(host, port)


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidNetPermissionError):
        parse_net(text)


def test_an_empty_list_covers_nothing() -> None:
    assert not AllowList.parse([]).covers("example.com", 443)
