"""Remembering what was made of short texts: headers, names, operators."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")

TEXT_COUNT_MAX = 1024
TEXT_CHARS_MAX = 256
"""Results for longer texts are made anew, so that clients cannot fill the memory."""


def memoized(function: Callable[[str], T]) -> Callable[[str], T]:
    """The same function, which must be pure; it does not keep what it raises."""
    kept = lru_cache(maxsize=TEXT_COUNT_MAX)(function)

    @wraps(function)
    def recall(text: str) -> T:
        return kept(text) if len(text) <= TEXT_CHARS_MAX else function(text)

    return recall
