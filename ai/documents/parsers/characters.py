"""Bytes → text: what they say of themselves, then UTF-8, then what is likely.

https://charset-normalizer.readthedocs.io
"""

import codecs
import re

from charset_normalizer import from_bytes

from butterbase.ai.documents.errors import DocumentTypeMismatchError

GUESSED_BYTES_MAX = 256 * 1024
"""From the middle of what is longer, where the words are."""

GUESSED_COUNT_MIN = 32
"""Of fewer characters that tell one charset from another nothing can be guessed."""
USUAL = "cp1252"
"""What most files are of that are not UTF-8."""

_ABOVE_ASCII = bytes(range(128, 256))
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BINARY_SHARE_MAX = 0.01


def decode(data: bytes, charset: str | None = None) -> str:
    """Raises DocumentTypeMismatchError where it is no text."""
    text = _decoded(data, charset)
    sample = text[:GUESSED_BYTES_MAX]
    if len(_BINARY.findall(sample)) > max(1, len(sample) * _BINARY_SHARE_MAX):
        raise DocumentTypeMismatchError(
            "the content is not text", hint="send it with the content type that it is of"
        )
    return text


def _decoded(data: bytes, charset: str | None) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    for named in (charset, "utf-8"):
        if (text := _try(data, named)) is not None:
            return text
    if len(data) - len(data.translate(None, _ABOVE_ASCII)) < GUESSED_COUNT_MIN:
        return data.decode(USUAL, "replace")
    middle = max(0, len(data) // 2 - GUESSED_BYTES_MAX // 2)
    guess = from_bytes(data[middle : middle + GUESSED_BYTES_MAX]).best()
    return data.decode(guess.encoding if guess else USUAL, "replace")


def _try(data: bytes, charset: str | None) -> str | None:
    try:
        # Only charsets: Python has codecs of other kinds, that unpack.
        if charset is None or not codecs.lookup(charset)._is_text_encoding:
            return None
        return data.decode(charset)
    except (LookupError, ValueError):
        return None
