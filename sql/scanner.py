"""Reading a text from left to right, with faults told as PostgREST's parser tells them.

That parser is made with Parsec, whose rules decide what a message says: of the ways that failed,
the one that came furthest counts, and those that came as far are told together. So a scanner
remembers, beside its position, how the text could have gone on there (`hint`).
https://hackage.haskell.org/package/parsec
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn, TypeAlias, TypeVar

from butterbase.sql.memo import memoized

T = TypeVar("T")

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BLANKS = re.compile(r"[ \t]*")

_TAB_WIDTH = 8
_CONTROL_NAMES = (
    *("NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "a", "b", "t", "n", "v", "f", "r"),
    *("SO", "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB"),
    *("ESC", "FS", "GS", "RS", "US"),
)


class Fault(NamedTuple):
    """What stands in a text where something else was expected."""

    position: int
    found: int | None = None
    """Where the unexpected character is; the text's length is its end."""
    refused: tuple[str, ...] = ()
    """Characters that must not stand there."""
    expected: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        return self.found is None and not self.refused and not self.expected


NOTHING = Fault(0)


def merged(first: Fault, second: Fault) -> Fault:
    """The one that came further, or both."""
    if first is NOTHING:
        return second
    if second.is_nothing:
        return first
    if first.is_nothing or first.position < second.position:
        return second
    if first.position > second.position:
        return first
    return Fault(
        first.position,
        second.found if first.found is None else first.found,
        first.refused + second.refused,
        first.expected + second.expected,
    )


class ScanError(Exception):
    """The text cannot be read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class Scanner:
    """A text, how far it was read, and how what was read could have gone on.

    A method that cannot read what it is for raises ScanError. If it moved before, the text is
    wrong; if it did not, something else may stand there (`optional`, `first_of`).
    """

    __slots__ = ("hint", "position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.hint = NOTHING

    def refuse(self, *expected: str) -> NoReturn:
        raise ScanError(merged(self.hint, Fault(self.position, self.position, (), expected)))

    def could_continue(self, *expected: str) -> None:
        """What was read ends here, and need not have."""
        self.hint = merged(self.hint, Fault(self.position, self.position, (), expected))

    def move_to(self, position: int) -> None:
        self.position = position
        self.hint = NOTHING

    def character(self, character: str, name: str = "") -> None:
        if not self.text.startswith(character, self.position):
            self.refuse(name or quoted(character))
        self.move_to(self.position + 1)

    def word(self, word: str) -> str:
        """This word. One that only begins like it has moved the scanner, as in Parsec."""
        start = self.position
        if self.text.startswith(word, start):
            self.move_to(start + len(word))
            return word
        same = common_prefix(word, self.text, start)
        fault = Fault(start, start + same, (), (quoted(word),))
        self.position += same
        raise ScanError(fault if same else merged(self.hint, fault))

    def any_word(self, *words: str) -> str | None:
        """The first of the words that stands here."""
        start = self.position
        for word in words:
            if self.text.startswith(word, start):
                self.move_to(start + len(word))
                return word
            found = start + common_prefix(word, self.text, start)
            self.hint = merged(self.hint, Fault(start, found, (), (quoted(word),)))
        return None

    def run(self, pattern: re.Pattern[str], *expected: str) -> str:
        """The text that the pattern matches, which may be empty; it could go on as expected."""
        match = pattern.match(self.text, self.position)
        assert match, "such a pattern matches the empty text"
        if match.end() > self.position:
            self.move_to(match.end())
        self.could_continue(*expected)
        return match[0]

    def blanks(self) -> None:
        self.run(_BLANKS)

    def quoted_text(self) -> str:
        """`"…"`, where a backslash stands before a quote or a backslash."""
        match = _QUOTED.match(self.text, self.position)
        if match:
            self.move_to(match.end())
            return unescaped(match[1])
        self.character('"')
        ends_in_escape = _ESCAPED.sub("", self.text[self.position :]).endswith("\\")
        self.move_to(len(self.text))
        return self.refuse(*(() if ends_in_escape else (quoted("\\"), quoted('"'))))

    def attempt(self, read: "Reader[T]") -> T:
        """Read, or stay where it was."""
        start, hint = self.position, self.hint
        try:
            return read(self)
        except ScanError as error:
            if self.position != start:
                self.position = start
                error.fault = merged(hint, error.fault)
            raise

    def first_of(self, *ways: "Reader[T]") -> T:
        """The first of the ways that reads anything."""
        for read in ways[:-1]:
            start = self.position
            try:
                return read(self)
            except ScanError as error:
                if self.position != start:
                    raise
                self.hint = error.fault
        return ways[-1](self)

    def optional(self, *ways: "Reader[T]") -> T | None:
        return self.first_of(*ways, lambda _: None)

    def named(self, name: str, read: "Reader[T]") -> T:
        """Where nothing was read, what was expected is told by this name."""
        start, hint = self.position, self.hint
        self.hint = NOTHING
        try:
            value = read(self)
        except ScanError as error:
            if self.position == start:
                error.fault = merged(hint, error.fault._replace(expected=(name,)))
            raise
        if self.position == start:
            if not self.hint.is_nothing:
                self.hint = self.hint._replace(expected=(name,))
            self.hint = merged(hint, self.hint)
        return value

    def separated(self, separator: "Reader[object]", read: "Reader[T]") -> list[T]:
        """One or more."""
        values = [read(self)]
        while True:
            start = self.position
            try:
                separator(self)
                values.append(read(self))
            except ScanError as error:
                if self.position != start:
                    raise
                self.hint = error.fault
                return values
            self.hint = NOTHING  # only how the list goes on is told after its second value

    def end_or(self, *words: str) -> None:
        """See that one of the words follows, or nothing."""
        for word in words:
            if self.text.startswith(word, self.position):
                return
            found = self.position + common_prefix(word, self.text, self.position)
            self.hint = merged(self.hint, Fault(self.position, found, (), (quoted(word),)))
        if self.position < len(self.text):
            refused = (self.text[self.position],)
            raise ScanError(
                merged(self.hint, Fault(self.position, None, refused, ("end of input",)))
            )
        self.could_continue("end of input")

    def not_before(self, character: str) -> None:
        """See that this character does not follow."""
        if self.text.startswith(character, self.position):
            raise ScanError(merged(self.hint, Fault(self.position + 1, None, (character,))))
        self.could_continue(quoted(character))


Reader: TypeAlias = Callable[[Scanner], T]


def trying(read: Reader[T]) -> Reader[T]:
    """The same, but it stays where it was when it fails."""
    return lambda scanner: scanner.attempt(read)


def literal(word: str) -> Reader[str]:
    return lambda scanner: scanner.word(word)


def common_prefix(word: str, text: str, start: int) -> int:
    """How many characters of the word stand in the text."""
    same = 0
    while same < len(word) and text.startswith(word[same], start + same):
        same += 1
    return same


def unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


@memoized
def quoted(text: str) -> str:
    """As Haskell shows a text: in quotes, in ASCII."""
    return '"' + "".join(_shown(c, '"') for c in text) + '"'


def place(text: str, position: int) -> str:
    """`(line 1, column 7)`"""
    before = text[:position]
    line = before.rpartition("\n")[2]
    column = 1
    for character in line:
        column += _TAB_WIDTH - (column - 1) % _TAB_WIDTH if character == "\t" else 1
    return f"(line {before.count(chr(10)) + 1}, column {column})"


def explanation(text: str, fault: Fault) -> str:
    """`unexpected "x" expecting "," or end of input`"""
    unexpected = _one_of(["'" + _shown(c, "'") + "'" for c in fault.refused])
    if not unexpected and fault.found is not None:
        at_end = fault.found >= len(text)
        unexpected = "end of input" if at_end else quoted(text[fault.found])
    expected = _one_of(fault.expected)
    parts = (unexpected and f"unexpected {unexpected}", expected and f"expecting {expected}")
    return " ".join(filter(None, parts)) or "unknown parse error"


def _one_of(names: Iterable[str]) -> str:
    *others, last = dict.fromkeys(names) or ("",)
    return f"{', '.join(others)} or {last}" if others else last


def _shown(character: str, quote: str) -> str:
    code = ord(character)
    if character in ("\\", quote):
        return "\\" + character
    if code < len(_CONTROL_NAMES):
        return "\\" + _CONTROL_NAMES[code]
    if code < 0x7F:
        return character
    return "\\DEL" if code == 0x7F else f"\\{code}"
