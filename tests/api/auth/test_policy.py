import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from butterbase.api.auth.config import PasswordPolicy
from butterbase.api.auth.errors import EmailInvalidError, WeakPasswordError
from butterbase.api.auth.mail.message import address_of
from butterbase.api.auth.policy import check_email, check_password, weakness_of

LETTERS_AND_DIGITS = PasswordPolicy(
    length_min=8, required_characters=("abcdefghijklmnopqrstuvwxyz", "0123456789")
)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("ana@example.com", "ana@example.com"),
        ("  Ana.O'Hara+x@Mail.Example.COM ", "ana.o'hara+x@mail.example.com"),
        ("ana@exämple.de", "ana@xn--exmple-cua.de"),
        ("ana@\uff45xample.com", "ana@example.com"),
    ],
)
def test_an_address_is_kept_in_one_way_to_write_it(given: str, address: str) -> None:
    assert check_email(given) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "ana", "ana@", "@x.de", "ana@x", "a na@x.de", "a@b@x.de", "a\0@x.de", "a@x."),
        *(".ana@x.de", "a..b@x.de", "ana@x..de", "ana@x.de.", "ana(me)@x.de", "ana@x_y.de"),
        *("<ana@x.de>", '"a b"@x.de', "ana@x.de\nbcc: eve@x.de", "\ud800@x.de"),
        *("a" * 65 + "@x.de", "a@" + "x.de" * 64),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(EmailInvalidError):
        check_email(address)


@given(
    st.text()
    | st.emails()
    | st.from_regex(r"\A[!-~]{1,6}@[\w-]{1,5}\.[\w-]{1,5}\Z")
    | st.builds("{}@{}.{}".format, st.text(), st.text(), st.text())
)
@example("ana@İ.de")
def test_any_text_is_an_address_that_can_be_mailed_to_or_refused(text: str) -> None:
    try:
        address = check_email(text)
    except EmailInvalidError:
        return
    assert check_email(address) == address
    assert address_of(address).username == address.split("@")[0]


@pytest.mark.parametrize(
    ("password", "reasons"),
    [
        ("abcdefg1", None),
        ("abcde1", ["length"]),
        ("abcdefgh", ["characters"]),
        ("ABC", ["length", "characters"]),
    ],
)
def test_a_password_has_what_the_policy_asks_for(password: str, reasons: list[str] | None) -> None:
    weakness = weakness_of(password, LETTERS_AND_DIGITS)
    assert (weakness and list(weakness.reasons)) == reasons


@pytest.mark.parametrize("password", ["x" * 1025, "ü" * 513, "half \ud83d a pair"])
def test_what_cannot_be_hashed_is_no_password(password: str) -> None:
    with pytest.raises(WeakPasswordError):
        check_password(password, PasswordPolicy())
