import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.postgrest.config_file import parse_config
from butterbase.sql.errors import SettingError


def test_text_numbers_and_booleans_are_read_as_text() -> None:
    text = """
# a comment, and a blank line

db-uri       = "postgres://user:pass@host:5432/dbname"   # the end of a line
server-port=3000
  db-plan-enabled = true
db-config = off
app.settings.key.of-it = "value"
"""
    assert parse_config(text, {}) == {
        "db-uri": "postgres://user:pass@host:5432/dbname",
        "server-port": "3000",
        "db-plan-enabled": "true",
        "db-config": "false",
        "app.settings.key.of-it": "value",
    }


def test_quoted_text_has_escapes_and_may_hold_a_hash_sign() -> None:
    text = r'jwt-secret = "{ \"kty\": \"oct\", \\ # \u00e9\n }"'
    assert parse_config(text, {}) == {"jwt-secret": '{ "kty": "oct", \\ # é\n }'}


def test_a_dollar_is_doubled_and_a_variable_is_put_in() -> None:
    text = 'jwt-role-claim-key = "$$.role"\nname = "x"\napp.settings.a = "$(name)-$(SECRET)"'
    values = parse_config(text, {"SECRET": "s", "name": "hidden by the file"})
    assert values["jwt-role-claim-key"] == "$.role"
    assert values["app.settings.a"] == "x-s"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('a = "1"\nb: 2', "line 2 .*not `name = value`"),
        ("db-schemas = public", "line 1 .*needs quotes"),
        ('a = "open', "line 1"),
        ('a = "x" "y"', "line 1"),
        ('\n\na = "$b"', r"line 3 .*a single \$"),
        ('a = "$(NOWHERE)"', "no variable NOWHERE"),
        (r'a = "\q"', "not a known escape"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        parse_config(text, {})


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = parse_config(text, {})
    except SettingError:
        return
    assert all(isinstance(value, str) for value in values.values())
