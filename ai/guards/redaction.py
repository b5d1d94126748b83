"""Values that the provider does not see: placeholders in their stead, and back in the answer.

A placeholder such as `EMAIL-1-K3X9QZ7M42` is made for one request, and nobody can guess it: what a
text tells the model to write down is restored only where it stood in this very request. It has no
character that JSON or Markdown would escape.
"""

import re
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Final

from butterbase.ai.guards.detectors import find_spans
from butterbase.ai.guards.policy import Kind

_ALPHABET: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_NONCE_LENGTH: Final = 12
_NUMBER_LENGTH_MAX: Final = 6

_NAMES: Final[dict[Kind, str]] = {
    "secret": "SECRET",
    "email": "EMAIL",
    "phone": "PHONE",
    "card": "CARD",
}
_KINDS: Final[dict[str, Kind]] = {name: kind for kind, name in _NAMES.items()}


_FIRST_CHARS: Final = frozenset(name[0] for name in _KINDS)
_CHARS: Final = frozenset(_ALPHABET + "ILO01-")


def new_nonce() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_NONCE_LENGTH))


def hide(text: str, kinds: frozenset[Kind], counts: Counter[Kind]) -> str:
    """The text with each value's kind in its stead: always the same, so that equal texts have equal
    vectors, and for good. Adds to `counts`."""
    parts, at = [], 0
    for span in find_spans(text, kinds):
        counts[span.kind] += 1
        parts += [text[at : span.start], _NAMES[span.kind]]
        at = span.end
    return "".join([*parts, text[at:]]) if parts else text


class Redaction:
    """Of one request."""

    def __init__(self, kinds: frozenset[Kind], nonce: str) -> None:
        self._kinds = kinds
        self._nonce = nonce
        self._placeholders: dict[str, str] = {}
        """By value."""
        self._values: dict[str, str] = {}
        self._whole = re.compile(rf"(?:{'|'.join(_KINDS)})-[0-9]{{1,{_NUMBER_LENGTH_MAX}}}-{nonce}")
        self.added_length = 0
        """By how much all placeholders together are longer than their values."""
        self._length_max = max(map(len, _KINDS)) + _NUMBER_LENGTH_MAX + len(nonce) + 2

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self._values)

    @property
    def counts(self) -> dict[Kind, int]:
        """Different values, by kind."""
        counts: dict[Kind, int] = {}
        for placeholder in self._values:
            kind = _KINDS[placeholder.partition("-")[0]]
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def redact(self, text: str) -> str:
        """A value that comes again has the same placeholder."""
        spans = find_spans(text, self._kinds)
        if not spans:
            return text
        parts, at = [], 0
        for span in spans:
            value = text[span.start : span.end]
            placeholder = self._placeholder(value, span.kind)
            self.added_length += max(0, len(placeholder) - len(value))
            parts += [text[at : span.start], placeholder]
            at = span.end
        return "".join([*parts, text[at:]])

    def restore(self, text: str, escape: Callable[[str], str] = str) -> str:
        """`escape` is done to each value that is put back."""
        if self._nonce not in text:
            return text
        return self._whole.sub(lambda found: escape(self._values.get(found[0], found[0])), text)

    def held_back(self, text: str) -> int:
        """How many characters at the end may be the begin of a placeholder."""
        if not text or text[-1] not in _CHARS:
            return 0
        begin = max(0, len(text) - self._length_max + 1)
        # The end of a whole one may look like the begin of the next.
        for whole in self._whole.finditer(text, max(0, begin - self._length_max)):
            begin = max(begin, whole.end())
        for start in range(begin, len(text)):
            if text[start] in _FIRST_CHARS and self._may_begin(text[start:]):
                return len(text) - start
        return 0

    def _may_begin(self, text: str) -> bool:
        kind, dash, rest = text.partition("-")
        if not dash:
            return any(name.startswith(kind) for name in _KINDS)
        number, dash, nonce = rest.partition("-")
        if kind not in _KINDS or len(number) > _NUMBER_LENGTH_MAX:
            return False
        if not dash:
            return not number or _is_number(number)
        # A whole one is restored already, or is none of ours.
        is_begun = len(nonce) < len(self._nonce) and self._nonce.startswith(nonce)
        return is_begun and _is_number(number)

    def _placeholder(self, value: str, kind: Kind) -> str:
        known = self._placeholders.get(value)
        if known is None:
            known = f"{_NAMES[kind]}-{len(self._values) + 1}-{self._nonce}"
            self._placeholders[value] = known
            self._values[known] = value
        return known


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


class Restorer:
    """Restores a text that comes in pieces."""

    def __init__(self, redaction: Redaction, escape: Callable[[str], str] = str) -> None:
        self._redaction = redaction
        self._escape = escape
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text is certain now."""
        text = self._held + piece
        held = self._redaction.held_back(text)
        sure, self._held = text[: len(text) - held], text[len(text) - held :]
        return self._redaction.restore(sure, self._escape)

    def close(self) -> str:
        held, self._held = self._held, ""
        return self._redaction.restore(held, self._escape)
