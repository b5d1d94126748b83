"""Placeholders for values, and the values back: whole, in pieces, in JSON."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.guards.policy import Kind
from butterbase.ai.guards.redaction import Redaction, Restorer, new_nonce
from butterbase.ai.guards.rewriting import escape_json
from tests.ai.guards.test_detectors import FOUND, texts

ALL: frozenset[Kind] = frozenset({"secret", "email", "phone", "card"})
NONCE = "ABCDEFGHJKMN"


# Also those that end as the next placeholder may begin.
nonces = st.text("ACEMPSHO23", min_size=12, max_size=12)


def redaction(nonce: str = NONCE) -> Redaction:
    return Redaction(ALL, nonce)


def test_values_are_replaced_and_counted() -> None:
    made = redaction()
    text = made.redact("Mail ada@x.test or bob@x.test, or ada@x.test; pay with 4111111111111111")
    assert text == (
        f"Mail EMAIL-1-{NONCE} or EMAIL-2-{NONCE}, or EMAIL-1-{NONCE}; pay with CARD-3-{NONCE}"
    )
    assert made.counts == {"email": 2, "card": 1}


@given(texts)
def test_what_is_redacted_is_restored(text: str) -> None:
    made = redaction()
    assert made.restore(made.redact(text)) == text


@given(texts, st.lists(st.integers(0, 400), max_size=30), nonces)
def test_it_is_restored_wherever_the_stream_is_cut(text: str, cuts: list[int], nonce: str) -> None:
    made = redaction(nonce)
    redacted = made.redact(text)
    restorer = Restorer(made)
    places = sorted({min(cut, len(redacted)) for cut in cuts} | {0, len(redacted)})
    pieces = [redacted[a:b] for a, b in pairwise(places)]
    restored = [restorer.feed(piece) for piece in pieces] + [restorer.close()]
    assert "".join(restored) == text


@given(texts, nonces)
def test_letter_by_letter_no_placeholder_is_ever_shown(text: str, nonce: str) -> None:
    made = redaction(nonce)
    restorer = Restorer(made)
    shown = ""
    for letter in made.redact(text):
        shown += restorer.feed(letter)
        assert nonce not in shown
        assert text.startswith(shown)


def test_little_is_held_back() -> None:
    made = redaction()
    made.redact("ada@x.test")
    restorer = Restorer(made)
    assert restorer.feed("The E") == "The "
    assert restorer.feed("nd of EMAIL") == "End of "
    assert restorer.feed("-1") == ""
    assert restorer.feed("x EMAIL-1-ABC") == "EMAIL-1x "
    assert restorer.feed("DEFGHJKMN!") == "ada@x.test!"


@pytest.mark.parametrize(
    "text", [f"EMAIL-9-{NONCE}", f"PHONE-1-{NONCE}", "EMAIL-1-ZZZZZZZZZZZZ", f"email-1-{NONCE}"]
)
def test_what_was_not_in_the_request_is_restored_to_nothing(text: str) -> None:
    made = redaction()
    made.redact("ada@x.test")
    assert made.restore(text) == text
    restorer = Restorer(made)
    assert restorer.feed(text) + restorer.close() == text


@pytest.mark.parametrize(("_kind", "value"), FOUND, ids=[value[:20] for _, value in FOUND])
def test_a_value_in_json_stays_json(_kind: Kind, value: str) -> None:
    made = redaction()
    arguments = json.dumps({"to": made.redact(value)})
    restored = made.restore(arguments, escape_json)
    assert json.loads(restored) == {"to": value}


def test_nonces_are_not_the_same_twice() -> None:
    assert len({new_nonce() for _ in range(1000)}) == 1000
