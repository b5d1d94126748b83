from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.mfa.totp import (
    STEP_S,
    code_of,
    format_secret,
    matching_step,
    new_secret,
    provisioning_uri,
    qr_svg,
    step_at,
)

RFC_SECRET = b"12345678901234567890"
NOW_S = 1_767_225_600.0


@pytest.mark.parametrize(
    ("now_s", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(now_s: int, code: str) -> None:
    assert code_of(RFC_SECRET, step_at(now_s), digits=8) == code
    assert code_of(RFC_SECRET, step_at(now_s)) == code[2:]


@pytest.mark.parametrize(
    ("counter", "code"), [(0, "755224"), (1, "287082"), (5, "254676"), (9, "520489")]
)
def test_codes_are_those_of_rfc_4226(counter: int, code: str) -> None:
    assert code_of(RFC_SECRET, counter) == code


@pytest.mark.parametrize("late_steps", [-1, 0, 1])
def test_a_code_is_good_one_step_early_and_late(late_steps: int) -> None:
    step = step_at(NOW_S)
    code = code_of(RFC_SECRET, step)
    assert matching_step(RFC_SECRET, code, now_s=NOW_S + late_steps * STEP_S) == step


@pytest.mark.parametrize("late_steps", [-3, -2, 2, 3])
def test_a_code_is_not_good_beyond(late_steps: int) -> None:
    code = code_of(RFC_SECRET, step_at(NOW_S))
    assert matching_step(RFC_SECRET, code, now_s=NOW_S + late_steps * STEP_S) is None


def test_a_code_may_be_typed_as_apps_show_it() -> None:
    code = code_of(RFC_SECRET, step_at(NOW_S))
    assert matching_step(RFC_SECRET, f" {code[:3]} {code[3:]}\n", now_s=NOW_S) is not None


@given(st.text(max_size=10))
def test_any_text_is_a_code_or_is_not(text: str) -> None:
    step = matching_step(RFC_SECRET, text, now_s=NOW_S)
    assert step is None or code_of(RFC_SECRET, step) == "".join(text.split())


def test_digits_of_other_scripts_are_no_code() -> None:
    code = code_of(RFC_SECRET, step_at(NOW_S))
    fullwidth = "".join(chr(ord(digit) - ord("0") + 0xFF10) for digit in code)
    assert matching_step(RFC_SECRET, fullwidth, now_s=NOW_S) is None


def test_secrets_are_160_random_bits_in_base32() -> None:
    assert new_secret() != new_secret()
    assert len(new_secret()) == 20
    assert format_secret(RFC_SECRET) == "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def test_the_uri_is_what_authenticator_apps_read() -> None:
    uri = urlsplit(provisioning_uri(RFC_SECRET, issuer="My App: x", account="a b@example.com"))
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == "/My App  x:a b@example.com"
    assert "+" not in uri.query
    assert parse_qs(uri.query) == {
        "secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"],
        "issuer": ["My App  x"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }


def test_the_qr_code_is_an_image_that_a_data_url_can_hold() -> None:
    svg = qr_svg(provisioning_uri(RFC_SECRET, issuer="App", account="a@example.com"))
    root = ET.fromstring(svg)  # noqa: S314  our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not {"#", "%", "\n"} & set(svg)


@given(st.text(), st.text())
def test_any_names_fit_into_a_qr_code(issuer: str, account: str) -> None:
    uri = provisioning_uri(RFC_SECRET, issuer=issuer, account=account)
    assert uri.isascii()


def test_the_longest_names_fit_into_a_qr_code() -> None:
    assert qr_svg(provisioning_uri(RFC_SECRET, issuer="語" * 300, account="語" * 300))
