"""What a process asks for is put on a connection as one clean request, or refused."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from butterbase.api.functions.runtime.egress_requests import (
    EgressError,
    EgressRequest,
    Origin,
    exactly,
    for_api,
    headers_of,
    method_of,
    parse_url,
    redirected,
)


def asked(method: str = "GET", **headers: str) -> EgressRequest:
    return EgressRequest(1, method, "http://a.test/", list(headers.items()))


@pytest.mark.parametrize(
    "name",
    [
        "a: b",
        "x-forwarded-for ",
        " content-length",
        "transfer-encoding\t",
        "",
        "a\r\nb",
        "é",
        "a\0",
    ],
)
def test_a_name_of_a_header_that_is_two_things_is_refused(name: str) -> None:
    with pytest.raises(EgressError):
        headers_of(asked(**{name: "1"}))


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "\U0001f600", "\x7f", " a", "a "])
def test_a_value_of_a_header_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(EgressError):
        headers_of(asked(a=value))


def test_what_is_of_the_connection_is_not_the_functions_to_say() -> None:
    given_headers = {"Transfer-Encoding": "chunked", "content-length": "5", "Host": "x", "A": "é"}
    assert dict(headers_of(asked(**given_headers))) == {"A": "é"}


def test_the_api_is_told_nothing_of_a_proxy() -> None:
    forged = {"x-butterbase-depth": "0", "x-butterbase-function-token": "another's"}
    headers = headers_of(asked(**{"X-Forwarded-For": "1.1.1.1"}, **forged))
    assert dict(for_api(headers, Origin("main", 2))) == {"x-butterbase-depth": "3"}
    told = for_api(headers, Origin("main", token="its own"))
    assert told["x-butterbase-function-token"] == "its own"


def test_headers_are_bounded() -> None:
    with pytest.raises(EgressError):
        headers_of(EgressRequest(1, "GET", "http://a.test/", [("a", "b")] * 201))


@pytest.mark.parametrize("method", ["CONNECT", "trace", "GET /x HTTP/1.1\r\n\r\nGET", "", "G T"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(EgressError):
        method_of(asked(method))


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test/ HTTP/1.1\r\nx: y\r\n\r\nGET /",
        "http://a.test/a b",
        "http://a.test/é",
        "http://a.test/\0",
        "file:///etc/passwd",
        "http://",
        "//a.test/",
        "http://a.test:99999/",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EgressError):
        parse_url(url)


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b?c=%20", "http://a.test/b?c=%20"),
        ("//b.test/x", "http://b.test/x"),
        ("https://u:p@b.test/#part", "https://b.test/"),
        ("/a b\udcc3\udca9", "http://a.test/a%20b%C3%A9"),
        ("/x HTTP/1.1", "http://a.test/x%20HTTP/1.1"),
    ],
)
def test_a_redirect_leads_to_a_clean_url(location: str, leads_to: str) -> None:
    assert str(redirected(URL("http://a.test/d"), location)) == leads_to


@pytest.mark.parametrize("location", ["http://[::1", "file:///etc/passwd", "javascript:0"])
def test_a_redirect_to_no_url_is_told(location: str) -> None:
    with pytest.raises(EgressError):
        redirected(URL("http://a.test/"), location)


@given(st.text())
def test_any_url_is_clean_or_refused(text: str) -> None:
    try:
        path = parse_url(text).raw_path_qs
    except EgressError:
        return
    assert path.isascii()
    assert path.isprintable()
    assert " " not in path


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("length", [None, 3])
async def test_a_body_that_is_as_long_as_announced_is_passed_on(length: int | None) -> None:
    assert [part async for part in exactly(_parts(b"a", b"bc"), length)] == [b"a", b"bc"]


@pytest.mark.parametrize("length", [0, 2, 4])
async def test_a_body_of_another_length_is_an_error(length: int) -> None:
    passed: list[bytes] = []
    with pytest.raises(EgressError):
        await _read_into(passed, exactly(_parts(b"a", b"bc"), length))
    assert len(b"".join(passed)) <= length


async def _read_into(passed: list[bytes], body: AsyncIterator[bytes]) -> None:
    async for part in body:
        passed.append(part)
