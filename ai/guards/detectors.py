"""Secrets, e-mail addresses, phone and card numbers in a text; without IO.

A text takes time linear to its length: what is rare is looked for first (a sign, the begin of a
key, a digit), what repeats gives nothing back (`++`, `{…}+`) or is bounded.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from butterbase.ai.guards.policy import Kind


class Span(Struct, frozen=True, order=True):
    start: int
    end: int
    kind: Kind


def find_spans(text: str, kinds: frozenset[Kind]) -> list[Span]:
    """In order, and apart from each other: of two that overlap one is made, of the first's kind."""
    found: list[Span] = []
    if "secret" in kinds:
        found += _secrets(text)
    if "email" in kinds:
        found += _emails(text)
    if "card" in kinds or "phone" in kinds:
        found += (span for span in _numbers(text) if span.kind in kinds)
    found.sort(key=lambda span: (span.start, -span.end))
    kept: list[Span] = []
    for span in found:
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
        elif span.end > kept[-1].end:
            kept[-1] = Span(kept[-1].start, span.end, kept[-1].kind)
    return kept


# E-mail

_LOCAL_LENGTH_MAX: Final = 200
_LOCAL_BACKWARDS = re.compile(r"[\w.%+'-]{1,200}+")
_DOMAIN = re.compile(r"(?:[^\W_][\w-]{0,62}+\.){1,8}(?:xn--[a-zA-Z0-9-]{2,59}|[^\W\d_]{2,24})")


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        before = text[max(0, at - _LOCAL_LENGTH_MAX) : at][::-1]
        local, domain = _LOCAL_BACKWARDS.match(before), _DOMAIN.match(text, at + 1)
        if local is not None and domain is not None:
            yield Span(at - local.end(), domain.end(), "email")
        at = text.find("@", at + 1)


# Phones, with a country's code or grouped as numbers are and dates or amounts are not; and cards,
# as they are printed or without spaces.

_DIGIT_COUNT_MIN: Final = 7
_NUMERIC = re.compile(r"\d[\d ./()-]{6,}+")
_PHONE = re.compile(
    r"(?<![\w.+])(?!\d{1,2}[ ./-]\d{1,2}[ ./-]\d{4}(?!\d))(?:"
    r"(?:\+|00)[1-9](?:[ ./()-]{0,2}\d){6,14}"
    r"|\(\d{2,5}\)[ /-]?\d(?:[ -]?\d){4,9}"
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"
    r"|0\d{1,4}[ /-]\d(?:[ -]?\d){4,9}"
    r")(?!\w)"
)
_CARD = re.compile(
    r"(?<!\d)(?:"
    r"\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}"
    r"|\d{4}([ -])\d{6}\2\d{4,5}"
    r"|\d{12,19}"
    r")(?!\d)"
)
_CARD_PREFIXES: Final = ("2", "3", "4", "5", "6", "8")
_CARD_LENGTHS: Final = range(12, 20)


def _numbers(text: str) -> Iterator[Span]:
    for numeric in _NUMERIC.finditer(text):
        # What stands before it may belong to it: `+`, `(`.
        start, end = max(0, numeric.start() - 2), min(len(text), numeric.end() + 1)
        for found in _CARD.finditer(text, start, end):
            if _is_card(found[0]):
                yield Span(*found.span(), "card")
        for found in _PHONE.finditer(text, start, end):
            if _DIGIT_COUNT_MIN <= sum(map(str.isdigit, found[0])) <= 15:
                yield Span(*found.span(), "phone")


def _is_card(text: str) -> bool:
    """By its length, its first digit and the check digit (Luhn's).

    https://www.iso.org/standard/70484.html
    """
    digits = [int(char) for char in text if char.isdigit()]
    if len(digits) not in _CARD_LENGTHS or not text.startswith(_CARD_PREFIXES):
        return False
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (doubled + sum(digits[::-2])) % 10 == 0


# Secrets: by how providers begin theirs, and by what stands before them.

_TOKENS: Final = {
    "sk-": r"[A-Za-z0-9_-]{16,200}+",
    **dict.fromkeys(
        [f"{kind}_{mode}_" for kind in ("sk", "rk", "pk") for mode in ("live", "test")],
        r"[A-Za-z0-9]{10,200}+",
    ),
    **dict.fromkeys(["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"[A-Za-z0-9]{20,255}+"),
    "github_pat_": r"[A-Za-z0-9_]{20,255}+",
    "glpat-": r"[A-Za-z0-9_-]{16,200}+",
    **dict.fromkeys([f"xox{kind}-" for kind in "abeoprs"], r"[A-Za-z0-9-]{10,250}+"),
    "xapp-": r"[A-Za-z0-9-]{10,250}+",
    **dict.fromkeys(["AKIA", "ASIA", "ABIA", "ACCA"], r"[A-Z0-9]{16}+"),
    "AIza": r"[A-Za-z0-9_-]{35}+",
    "ya29.": r"[A-Za-z0-9_-]{20,500}+",
    "npm_": r"[A-Za-z0-9]{30,100}+",
    "pypi-": r"[A-Za-z0-9_-]{40,400}+",
    "hf_": r"[A-Za-z0-9]{20,100}+",
    "SG.": r"[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,64}+",
    "dop_v1_": r"[a-f0-9]{32,128}+",
    "bb_": r"[A-Za-z0-9_-]{43}+",
    "eyJ": r"[A-Za-z0-9_-]{8,4000}+\.eyJ[A-Za-z0-9_-]{8,8000}+\.[A-Za-z0-9_-]{8,2000}+",
}
# The begin first, which is found fast; then that no word has begun before it.
_TOKEN_PATTERNS: Final = {
    begin: re.compile(f"{re.escape(begin)}(?<![A-Za-z0-9_-]{re.escape(begin)}){rest}")
    for begin, rest in _TOKENS.items()
}

# Without `_`, `-` and spaces, in lowercase.
_NAMES: Final = (
    *("apikey", "secretkey", "accesskey", "privatekey", "accountkey", "accesstoken", "authtoken"),
    *("refreshtoken", "clientsecret", "secret", "token", "passwd", "password", "passwort"),
    *("passphrase", "pwd"),
)
_NAME_LENGTH_MAX: Final = 40
_SIGN = re.compile(r"[:=]")
_BETWEEN: Final = str.maketrans("", "", "_-\"'= \t")
_VALUE = re.compile(r">?\s{0,5}+[\"']?(?P<value>[^\s\"',;<>{}()\[\]]{6,500}+)")
_CREDENTIALS = re.compile(r"://(?P<value>[^\s/:@]{1,100}+:[^\s/]{1,200})@")
# Of words only what looks like none.
_SPOKEN = re.compile(
    r"(?:password|passwort|passphrase|pwd)\s{1,5}+(?:is|ist)\s{1,5}+[\"']?"
    r"(?P<value>(?=[^\s\"']{0,100}[\d!@#$%^&*])[^\s\"',;]{6,500}+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"bearer\s{1,5}+(?P<value>[A-Za-z0-9._~+/=-]{16,4000}+)", re.IGNORECASE)

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END: Final = "-----END"
_KEY_CHARS_MAX: Final = 20_000


def _secrets(text: str) -> Iterator[Span]:
    patterns = [pattern for begin, pattern in _TOKEN_PATTERNS.items() if begin in text]
    for pattern in patterns:
        for found in pattern.finditer(text):
            yield Span(*found.span(), "secret")
    lowered = text.lower()
    if "bearer" in lowered:
        yield from _values(_BEARER, text)
    if any(f"{word} is" in lowered for word in ("password", "passwort", "passphrase", "pwd")):
        yield from _values(_SPOKEN, text)
    if "://" in text:
        yield from _values(_CREDENTIALS, text)
    for sign in _SIGN.finditer(text):
        name = text[max(0, sign.start() - _NAME_LENGTH_MAX) : sign.start()]
        if name.translate(_BETWEEN).lower().endswith(_NAMES) and (
            value := _VALUE.match(text, sign.end())
        ):
            yield Span(*value.span("value"), "secret")
    yield from _private_keys(text)


def _values(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for found in pattern.finditer(text):
        yield Span(*found.span("value"), "secret")


def _private_keys(text: str) -> Iterator[Span]:
    at = 0
    while begin := _KEY_BEGIN.search(text, at):
        at = min(len(text), begin.end() + _KEY_CHARS_MAX)
        end = text.find(_KEY_END, begin.end(), at)
        if end >= 0:
            rest = text.find("-----", end + len(_KEY_END), end + 100)
            at = rest + 5 if rest >= 0 else end + len(_KEY_END)
        yield Span(begin.start(), at, "secret")
