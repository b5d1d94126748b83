"""Where in the developer's files a position of the bundle comes from.

https://tc39.es/ecma426/ (source maps, version 3). Pure.
"""

import bisect
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

_BASE64: Final = {
    character: value
    for value, character in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}
_CONTINUES: Final = 32
# A name, and the position in it, as V8 writes them at the end of a frame.
_POSITION: Final = re.compile(r"function:///[^\s:(),]*(?:, <anonymous>)?:(\d+):(\d+)")
_OWN_FRAME: Final = re.compile(r"^\s+at .*(?:data:application/javascript|ext:|node:).*$\n?", re.M)


class _File(Struct, frozen=True):
    mappings: str
    sources: tuple[str | None, ...] = ()
    sourceRoot: str | None = None  # noqa: N815  the format's name


class Segment(Struct, frozen=True, order=True):
    column: int
    source: int
    line: int
    source_column: int


class SourceMap:
    """All counts from zero."""

    def __init__(self, lines: list[list[Segment]], sources: tuple[str, ...]) -> None:
        self._lines = lines
        self._sources = sources

    def find(self, line: int, column: int) -> tuple[str, int, int] | None:
        """File, line and column of what was generated there."""
        if not 0 <= line < len(self._lines):
            return None
        segments = self._lines[line]
        at = bisect.bisect_right(segments, column, key=lambda segment: segment.column) - 1
        if at < 0 or segments[at].source < 0:
            return None
        found = segments[at]
        if not 0 <= found.source < len(self._sources):
            return None
        return self._sources[found.source], found.line, found.source_column


def parse_source_map(content: bytes) -> SourceMap:
    """Raises ValueError."""
    try:
        file = msgspec.json.decode(content, type=_File)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the source map cannot be read: {error}") from error
    root = file.sourceRoot or ""
    sources = tuple(root + (source or "?") for source in file.sources)
    return SourceMap(_decode_mappings(file.mappings), sources)


def map_stack(stack: str, source_map: SourceMap | None) -> str:
    """A stack with the developer's positions in place of the bundle's, without our own frames."""
    own = _OWN_FRAME.sub("", stack)

    def replaced(found: "re.Match[str]") -> str:
        place = source_map and source_map.find(int(found[1]) - 1, int(found[2]) - 1)
        if not place:
            return found[0]
        file, line, column = place
        return f"{file}:{line + 1}:{column + 1}"

    return _POSITION.sub(replaced, own).rstrip()


def _decode_mappings(mappings: str) -> list[list[Segment]]:
    lines: list[list[Segment]] = []
    source = source_line = source_column = 0
    for line in mappings.split(";"):
        column = 0
        segments = []
        for text in line.split(",") if line else ():
            values = _decode_numbers(text)
            if len(values) not in (1, 4, 5):
                raise ValueError("a segment of the source map has a wrong count of numbers")
            column += values[0]
            if len(values) == 1:
                segments.append(Segment(column, -1, 0, 0))
                continue
            source += values[1]
            source_line += values[2]
            source_column += values[3]
            segments.append(Segment(column, source, source_line, source_column))
        segments.sort()
        lines.append(segments)
    return lines


def _decode_numbers(text: str) -> list[int]:
    values: list[int] = []
    value = shift = 0
    for character in text:
        digit: Any = _BASE64.get(character)
        if digit is None or shift > 60:
            raise ValueError("the source map's mappings are not base64")
        value |= (digit & (_CONTINUES - 1)) << shift
        if digit & _CONTINUES:
            shift += 5
            continue
        values.append(-(value >> 1) if value & 1 else value >> 1)
        value = shift = 0
    if shift:
        raise ValueError("the source map ends within a number")
    return values
