import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.header_fields import fields_of_sql, is_name, is_value, one_line, quoted

UNSENDABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What uvicorn refuses in a value, after the query has run."""


@pytest.mark.parametrize("name", ["x", "X-Made", "a.b_c~d", "!#$%&'*+-.^`|"])
def test_a_token_is_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\r\nb", "a\n", '"a"'])
def test_nothing_else_is_a_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match=f"^{re.escape(name)}$"):
        fields_of_sql({"x": "", name: "x"})


def test_what_is_the_servers_is_left_out() -> None:
    given = {"Content-Length": "9", "TRANSFER-ENCODING": "chunked", "Upgrade": "h2c", "X-A": "1"}
    assert fields_of_sql({"connection": "close", **given}) == [(b"x-a", b"1")]


@given(st.text())
def test_one_line_is_a_value_that_can_be_sent(text: str) -> None:
    sent = one_line(text).encode("utf-8", "replace")
    assert is_value(one_line(text))
    assert not UNSENDABLE.search(sent)
    assert is_value(text) == (one_line(text) == text)


@given(st.text())
def test_a_quoted_string_ends_at_its_end(text: str) -> None:
    assert re.fullmatch(r'"(?:[^"\\]|\\.)*"', quoted(text))
    assert is_value(quoted(text))
