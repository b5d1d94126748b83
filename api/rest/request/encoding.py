"""`name=value&…` as it travels in query strings and forms. Pure.

https://url.spec.whatwg.org/#application/x-www-form-urlencoded, where `;` separates as `&` does.
"""

import re
from urllib.parse import quote, unquote_to_bytes

_ENCODED = re.compile(r"[%+]|[^\x00-\x7f]")
_PLAIN = re.compile(r"[\w.~-]*", re.ASCII)


def read_pairs(text: str) -> list[tuple[str, str | None]]:
    """Names and values, decoded; None where there is no `=`. Bytes above 127 come as latin-1.

    What is not UTF-8 becomes U+FFFD.
    """
    if ";" in text:
        text = text.replace(";", "&")
    decode = _decoded if _ENCODED.search(text) else str
    parts = [part.partition("=") for part in text.split("&") if part]
    return [(decode(name), decode(value) if equals else None) for name, equals, value in parts]


def has_null_character(text: str) -> bool:
    """Postgres has none in its texts. The text is still encoded."""
    return "%00" in text or "\0" in text


def encode(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")


def _decoded(text: str) -> str:
    received = text.replace("+", " ").encode("latin-1", "replace")
    return unquote_to_bytes(received).decode("utf-8", "replace")
