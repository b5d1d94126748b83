"""Secrets as they are found in text: plain, and in the forms that programs write them in. Pure."""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import quote, quote_plus

SECRET_CHARS_MIN: Final = 6
"""A shorter value would be found in innocent words."""
_LINE_CHARS_MIN: Final = 12
"""Of a part of a secret, which is less of a secret."""
_LINE_COUNT_MAX: Final = 100
_CHARS_MAX: Final = 8192
"""Longer ones are looked for as they are: no line has room for more of them."""


def forms_of(secrets: Iterable[str]) -> list[str]:
    """What to look for, the longest first: one may be a part of another."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) >= SECRET_CHARS_MIN:
            found.update(form for form in _forms(secret) if len(form) >= SECRET_CHARS_MIN)
    return sorted(found, key=lambda form: (-len(form), form))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    lines = secret.splitlines()[:_LINE_COUNT_MAX]
    if len(lines) > 1:  # a key is shown line by line
        yield from (line for line in map(str.strip, lines) if len(line) >= _LINE_CHARS_MIN)
    if len(secret) > _CHARS_MAX:
        return
    data = secret.encode("utf-8", "surrogatepass")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(json.dumps(secret))[3:-3]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield quote(data, safe="")
    yield quote(data, safe="!'()*~")  # encodeURIComponent
    yield quote_plus(data)
    yield quote(data, safe="@*_+-./")  # escape
    yield data.hex()
    yield data.hex().upper()
    yield from _in_base64(data)
    if not secret.isascii():
        with suppress(UnicodeEncodeError):
            yield from _in_base64(secret.encode("latin-1"))  # btoa


def _in_base64(data: bytes) -> Iterator[str]:
    """In a longer text too, where it may begin at any of three places of a group: of those, what
    no neighbour changes."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode()
        first = (0, 2, 3)[before]
        rest = (before + len(data)) % 3
        last = len(encoded) - (0, 3, 2)[rest]
        inner = encoded[first:last]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
