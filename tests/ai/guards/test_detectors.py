"""What is taken for a secret, an address, a phone or a card number, and what is not."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.guards.detectors import find_spans
from butterbase.ai.guards.policy import Kind

ALL: frozenset[Kind] = frozenset({"secret", "email", "phone", "card"})

FOUND: list[tuple[Kind, str]] = [
    ("email", "ada@example.com"),
    ("email", "ada.b+tag@mail.example.co.uk"),
    ("email", "o'neil_x@exämple.de"),
    ("email", "имя@почта.рф"),
    ("email", "a@b.xn--p1ai"),
    ("phone", "+14155552671"),
    ("phone", "+1 (415) 555-2671"),
    ("phone", "+49 30 901820"),
    ("phone", "0049 30 901820"),
    ("phone", "030/9018201"),
    ("phone", "(415) 555-2671"),
    ("phone", "415-555-2671"),
    ("phone", "0171 2345678"),
    ("card", "4111111111111111"),
    ("card", "4111 1111 1111 1111"),
    ("card", "5500-0000-0000-0004"),
    ("card", "3782 822463 10005"),
    ("secret", "sk-proj-abcdefghijklmnop1234"),
    ("secret", "sk-ant-api03-abcdefghijklmnop"),
    ("secret", "sk_live_abcdefghij0123456789"),
    ("secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("secret", "github_pat_11ABCDEFG0123456789_abcdefghij"),
    ("secret", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", "AIza" + "a" * 35),
    ("secret", "xoxb-123456789012-abcdefghij"),
    ("secret", "bb_" + "a" * 43),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl"),
    ("secret", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----"),
]


@pytest.mark.parametrize(("kind", "value"), FOUND, ids=[value[:20] for _, value in FOUND])
@pytest.mark.parametrize(
    "around", ["{}", "It is {}.", "({})", '"{}"', "a,{},b", "x\n{}\ny", "ja: {}!"]
)
def test_a_value_is_found_whole(kind: Kind, value: str, around: str) -> None:
    text = around.format(value)
    (span,) = find_spans(text, ALL)
    assert (text[span.start : span.end], span.kind) == (value, kind)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password: hunter2", "hunter2"),
        ("PASSWORD = 'hunter2'", "hunter2"),
        ('{"api_key": "abcdef123"}', "abcdef123"),
        ("OPENAI_API_KEY=abcdef123", "abcdef123"),
        ("clientSecret => abcdef", "abcdef"),
        ("Authorization: Bearer abcdefghijklmnop0", "abcdefghijklmnop0"),
        ("my password is hunter2!", "hunter2!"),
        ("postgres://ada:p@ss@db.test/x", "ada:p@ss"),
    ],
)
def test_a_secret_is_told_by_what_stands_before_it(text: str, value: str) -> None:
    (span,) = find_spans(text, frozenset({"secret"}))
    assert text[span.start : span.end] == value


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15 10:30", "01-15-2024", "15.01.2024", "192.168.100.200", "1,000,000.00",
        "v1.2.3", "4111111111111112", "0000000000000000", "1234567890123", "order 1002003004",
        "3.141592653589793", "task-oriented work", "risk-averse", "the token is expired",
        "bearer of bad news", "ada@localhost", "a @ b", "@ada", "key: value", "max_tokens = 5",
        "the password is expired", "https://example.com/a:b",
        "550e8400-e29b-41d4-a716-446655440000",
    ],
)  # fmt: skip
def test_what_is_none_is_let_be(text: str) -> None:
    assert find_spans(text, ALL) == []


def test_only_what_is_asked_for_is_found() -> None:
    text = "ada@example.com +14155552671 4111111111111111 sk-abcdefghijklmnop"
    for kind in ALL:
        assert [span.kind for span in find_spans(text, frozenset({kind}))] == [kind]


def test_a_key_without_an_end_is_taken_as_far_as_keys_are_long() -> None:
    text = "-----BEGIN PRIVATE KEY-----" + "A" * 30_000
    (span,) = find_spans(text, ALL)
    assert (span.start, span.end) == (0, 20_027)


_PIECES = [
    *(value for _, value in FOUND), "@", "-", "+", ".", " ", "://", ":", "=", "password", "token",
    "bearer ", "sk-", "eyJ", "-----BEGIN ", "PRIVATE KEY-----", "1", "0", "4111",
    "(", ")", "a", "é",
]  # fmt: skip
texts = st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=30).map("".join)


@given(texts, st.sets(st.sampled_from(sorted(ALL))))
def test_spans_are_in_order_and_apart(text: str, kinds: set[str]) -> None:
    spans = find_spans(text, cast("frozenset[Kind]", frozenset(kinds)))
    at = 0
    for span in spans:
        assert at <= span.start < span.end <= len(text)
        assert span.kind in kinds
        at = span.end


HOSTILE = [
    "@", "a@", "x@a.", "a@" + "b." * 9, "1", "1 ", "4111 ", "+1", "(030) 1", "0123 ", "sk-", "eyJ",
    "eyJaaaaaaaa.", "://a:", "token:", "token=", "password is ", "bearer ", "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----", "'\"", "é@", "_-", "%",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_takes_long(piece: str) -> None:
    """What is not linear does not end within the time of the run."""
    find_spans(piece * (300_000 // len(piece)), ALL)
