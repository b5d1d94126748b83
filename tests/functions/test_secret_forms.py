"""A secret is found in the forms that programs write it in."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.functions.runtime.logs import Redactor
from butterbase.api.functions.runtime.secret_forms import forms_of
from tests.functions.calling import version_of

SECRET = 's3cr3t/va+lue="q" é'

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in a URL": lambda s: quote(s, safe=""),
    "as a browser has it": lambda s: quote(s, safe="!'()*~"),
    "escaped": lambda s: quote(s, safe="@*_+-./"),
    "in a form": lambda s: urlencode({"a": s}),
    "in JSON": lambda s: json.dumps({"a": s}, ensure_ascii=False),
    "in JSON's ASCII": lambda s: json.dumps({"a": s}),
    "in JSON in JSON": lambda s: json.dumps(json.dumps({"a": s})),
    "hexadecimal": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "as btoa has it": lambda s: base64.b64encode(s.encode("latin-1")).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "a user's": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "with neighbours": lambda s: base64.b64encode(f"ab:{s}:cd".encode()).decode(),
    "with others": lambda s: base64.b64encode(f"a:{s}:c".encode()).decode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_secret_is_taken_out(name: str) -> None:
    text = f"before {FORMS[name](SECRET)} after"
    told = Redactor(version_of("", env={"KEY": SECRET})).redact(text, None)
    assert "[redacted]" in told
    assert told.startswith("before ")
    assert told.endswith(" after")
    # No more of it than the characters that its neighbours share with it.
    assert len(told) <= len("before [redacted] after") + 16


def test_a_key_of_many_lines_is_taken_out_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nBKcwggSjAgEAAoIBAQC7VJTUt9\n"
    redactor = Redactor(version_of("", env={"KEY": key}))
    assert redactor.redact('"MIIEvQIBADANBgkqhkiG9w0BAQ\\n" +', None) == '"[redacted]\\n" +'


def test_short_values_are_left_as_they_are() -> None:
    assert forms_of(["yes", ""]) == []


def test_a_long_value_has_few_forms() -> None:
    assert len(forms_of(["x" * 48_000])) == 1


@given(st.text(min_size=6), st.binary(max_size=20), st.binary(max_size=20))
def test_any_secret_is_found_in_base64(secret: str, before: bytes, after: bytes) -> None:
    whole = base64.b64encode(before + secret.encode("utf-8", "surrogatepass") + after).decode()
    assert any(form in whole for form in forms_of([secret]))
