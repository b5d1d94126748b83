"""Globs of addresses, matched in one pass whatever they are: a stranger chooses the address. Pure.

`*` is anything but `.` and `/`, `**` anything, `?` one character but those, `[a-z]` and `[!a-z]`
one of a range or none of it, `{a,b}` one of them, and `\\` takes the next character as it is.

Alternatives are multiplied out, and all of them are followed at once: each place in them is a bit
of one number, and a character of the address moves all the bits (Baeza-Yates and Gonnet, 1992).
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from msgspec import Struct

TOKEN_COUNT_MAX: Final = 2000
"""Of all alternatives together; what has more matches nothing."""

_CHARACTERS: Final = "".join(map(chr, range(0x21, 0x7F)))
_NO_SEGMENT: Final = "./"
_NESTING_MAX: Final = 5

Loop: TypeAlias = Literal["", "*", "**"]


class _One(Struct, frozen=True):
    """One of these characters, or with `is_any` any but `.` and `/`."""

    characters: str
    is_any: bool = False


_Token: TypeAlias = _One | Loop
_Tokens: TypeAlias = tuple[_Token, ...]

_SEGMENT_CHARACTER: Final = _One("", is_any=True)


class Glob:
    """`is_host`: no star at the end lets a name go on, for `example.com**` is not
    `example.com.evil.com`; a whole last label may be a star. A port may follow.
    """

    def __init__(self, alternatives: Sequence[_Tokens], *, is_host: bool = False) -> None:
        self._bits: dict[str, int] = {}
        """By character: the places from which it leads on to the next one."""
        self._segment_bits = self._loop_bits = self._any_bits = 0
        self._starts = self._ends = 0
        at = 0
        for tokens in alternatives:
            self._starts |= 1 << at
            at = self._add(_closed(tokens) if is_host else tokens, at)
            self._ends |= 1 << at
            at += 1

    def _add(self, tokens: _Tokens, at: int) -> int:
        """Where it ends."""
        for step in tokens:
            bit = 1 << at
            if step == "**":
                self._any_bits |= bit
            elif step == "*":
                self._loop_bits |= bit
            elif isinstance(step, _One):
                if step.is_any:
                    self._segment_bits |= bit
                for character in step.characters:
                    self._bits[character] = self._bits.get(character, 0) | bit
                at += 1
        return at

    def matches(self, text: str) -> bool:
        places = self._starts
        for character in text:
            moving, staying = self._bits.get(character, 0), self._any_bits
            if character not in _NO_SEGMENT:
                moving |= self._segment_bits
                staying |= self._loop_bits
            places = ((places & moving) << 1) | (places & staying)
            if not places:
                return False
        return bool(places & self._ends)


@lru_cache(maxsize=1024)
def glob(pattern: str, *, is_host: bool = False) -> Glob:
    """What cannot be read matches nothing."""
    try:
        alternatives, _ = _read(pattern, 0, "", _NESTING_MAX)
    except (ValueError, re.error):
        alternatives = []
    return Glob(alternatives, is_host=is_host)


def _read(pattern: str, at: int, until: str, nesting: int) -> tuple[list[_Tokens], int]:
    """All it may be up to one of the characters `until`, and where that is. Raises ValueError."""
    found: list[_Tokens] = [()]
    while at < len(pattern) and pattern[at] not in until:
        character = pattern[at]
        parts: list[_Tokens]
        if character == "*":
            end = at
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            parts, at = [("*",) if end - at == 1 else ("**",)], end - 1
        elif character == "?":
            parts = [(_SEGMENT_CHARACTER,)]
        elif character == "[":
            characters, at = _range(pattern, at)
            parts = [(_One(characters),)]
        elif character == "{":
            parts, at = _alternatives(pattern, at, nesting)
        else:
            if character == "\\":
                at += 1
            literal = pattern[at : at + 1]
            parts = [(_One(literal),)] if literal else [()]
        if len(parts) == 1:
            found = [(*tokens, *parts[0]) for tokens in found]
        else:
            _check_size(len(found) * sum(map(len, parts)) + len(parts) * sum(map(len, found)))
            found = [(*tokens, *part) for tokens in found for part in parts]
        at += 1
    _check_size(len(found) + sum(map(len, found)))
    return found, at


def _alternatives(pattern: str, at: int, nesting: int) -> tuple[list[_Tokens], int]:
    parts: list[_Tokens] = []
    if nesting == 0:
        raise ValueError(pattern)
    while True:
        found, at = _read(pattern, at + 1, ",}", nesting - 1)
        parts += found
        _check_size(len(parts))
        if at >= len(pattern):
            raise ValueError(pattern)
        if pattern[at] == "}":
            return parts, at


def _check_size(count: int) -> None:
    if count > TOKEN_COUNT_MAX:
        raise ValueError(count)


def _range(pattern: str, at: int) -> tuple[str, int]:
    end = pattern.index("]", at + 2)
    inside = pattern[at + 1 : end]
    negated, inside = ("^", inside[1:]) if inside[0] in "!^" else ("", inside)
    if not re.fullmatch(r"[A-Za-z0-9_.~-]+", inside):
        raise ValueError(pattern)
    one = re.compile(f"[{negated}{inside}]")
    return "".join(character for character in _CHARACTERS if one.fullmatch(character)), end


def _closed(tokens: _Tokens) -> _Tokens:
    """Without the stars that let the name of a host go on."""
    colons = [at for at, token in enumerate(tokens) if token == _One(":")]
    end = colons[-1] if colons else len(tokens)
    start = end
    while start > 0 and isinstance(tokens[start - 1], str):
        start -= 1
    is_label = tokens[start:end] == ("*",) and start > 0 and tokens[start - 1] == _One(".")
    return tokens if is_label else tokens[:start] + tokens[end:]
