"""A request's headers as SQL reads them."""

import json
from typing import Any

import pytest

from butterbase.api.rest.request.headers import Headers


def cookies(header: bytes) -> Any:
    return json.loads(Headers([(b"cookie", header)]).cookies_as_json())


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"a=1; b=2", {"a": "1", "b": "2"}),
        (b"a=1;b=2;", {"a": "1", "b": "2"}),
        (b'a={"x":1}; b=2', {"a": '{"x":1}', "b": "2"}),
        (b"a,b=1; c=2", {"a,b": "1", "c": "2"}),
        (b"a=1; b[]=2; c=3", {"a": "1", "b[]": "2", "c": "3"}),
        (b"a=x=y==", {"a": "x=y=="}),
        (b'a="q"', {"a": '"q"'}),
        (b"a=1; a=2", {"a": "2"}),
        (b"a; =b; ;", {"a": ""}),
        ("a=é".encode(), {"a": "é"}),
        (b"", {}),
    ],
)
def test_each_cookie_is_read_for_itself(header: bytes, found: dict[str, str]) -> None:
    assert cookies(header) == found


def test_cookies_stand_apart() -> None:
    headers = Headers([(b"cookie", b"a=1"), (b"x", b"1")])
    assert json.loads(headers.as_json()) == {"x": "1"}
    assert json.loads(Headers([]).cookies_as_json()) == {}
