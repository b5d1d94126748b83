import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.one_time import (
    KINDS_OF_TYPE,
    PKCE_PREFIX,
    code_hash,
    link_hash,
    make,
)

KEY = b"k" * 32


def test_a_token_has_a_link_of_256_bits_and_a_code_of_digits() -> None:
    made = [make("magiclink", "ana@x.yz") for _ in range(50)]
    assert all(len(bytes.fromhex(token.link)) == 32 for token in made)
    assert all(len(token.code) == 6 and token.code.isdigit() for token in made)
    assert len({token.link for token in made}) == 50
    assert len({token.code for token in made}) > 40


@pytest.mark.parametrize(("number", "code"), [(0, "000000"), (7, "000007"), (999_999, "999999")])
def test_a_code_keeps_its_zeros(number: int, code: str) -> None:
    assert make("recovery", "a@b.c", below=lambda n: min(number, n - 1)).code == code


@given(st.integers(6, 10))
def test_codes_are_drawn_from_all_there_are(length: int) -> None:
    asked: list[int] = []

    def below(n: int) -> int:
        asked.append(n)
        return 0

    assert len(make("recovery", "a@b.c", code_length=length, below=below).code) == length
    assert [math.log2(asked[0]), math.log10(asked[1])] == [256, length]


def test_a_link_tells_the_client_that_it_ends_in_a_code() -> None:
    assert make("magiclink", "a@b.c", is_pkce=True).link.startswith(PKCE_PREFIX)


def test_equal_codes_have_different_hashes_for_others() -> None:
    hashes = {
        code_hash(KEY, "magiclink", "ana@x.yz", "123456"),
        code_hash(KEY, "recovery", "ana@x.yz", "123456"),
        code_hash(KEY, "magiclink", "eva@x.yz", "123456"),
        code_hash(b"another key", "magiclink", "ana@x.yz", "123456"),
        code_hash(KEY, "magiclink", "ana@x.yz", "123457"),
        link_hash(KEY, "123456"),
    }
    assert len(hashes) == 6


def test_an_address_may_be_typed_in_any_case() -> None:
    assert code_hash(KEY, "magiclink", " Ana@X.yz ", "1") == code_hash(
        KEY, "magiclink", "ana@x.yz", "1"
    )


def test_a_code_signs_in_and_never_changes_an_address_by_the_way() -> None:
    changes = set(KINDS_OF_TYPE["email_change"])
    for type_, kinds in KINDS_OF_TYPE.items():
        assert "reauthentication" not in kinds
        assert type_ == "email_change" or not changes & set(kinds)


def test_a_token_does_not_show_itself() -> None:
    token = make("recovery", "ana@x.yz")
    assert token.link not in repr(token)
    assert token.code not in repr(token)
