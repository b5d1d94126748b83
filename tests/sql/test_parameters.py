"""What statements are made of, in Postgres's text format."""

import pytest

from butterbase.sql.pipeline import Statement, Value, bytea


@pytest.mark.parametrize(
    ("value", "parameter"),
    [
        (None, None),
        ("é", "é".encode()),
        (True, b"t"),
        (False, b"f"),
        (-7, b"-7"),
        (1_800_000_000.25, b"1800000000.25"),
        (b'{"a": 1}', b'{"a": 1}'),
        (bytea(b"\0\xff"), rb"\x00ff"),
    ],
)
def test_a_value_is_a_parameter(value: Value, parameter: bytes | None) -> None:
    assert Statement.of(b"select $1", value) == Statement(b"select $1", (parameter,))
