"""Texts to embed: a document → passages of a size that the embedding model sees whole.

Breaks are looked for at headings first, then blank lines, ends of sentences, ends of lines, and
words. A heading begins a chunk, unless less than a quarter of one came before it: text of many
headings would else have as many chunks. Of Markdown, headings that begin with `#` and fenced code,
in which there are none, are known (https://spec.commonmark.org/0.31.2/#atx-headings); anything
else is text.
"""

import hashlib
import re
from collections.abc import Iterator

from msgspec import Struct

CHUNK_CHARS = 800
"""The local model sees 254 word pieces: English prose of this size has some 170, a manual 200, text
full of code and links up to 350. Scripts without spaces take about one for each character, so
there a size of 240 is right."""
OVERLAP_CHARS = 120
TITLE_CHARS_MAX = 100
"""Of each heading in the path; the whole heading is in the text."""

_LINE = re.compile(r"[^\n]+\n?|\n")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)", re.DOTALL)
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$", re.DOTALL)
_CLOSING_MARKS = re.compile(r"(?:^|[ \t]+)#+$")

# Each finds places to break, as zero-width matches; the surest first.
_SENTENCE_END = re.compile(
    r"""(?:(?<=[.!?…])|(?<=[.!?…]["')\]”’»]))(?=\s)|(?<=[。！？])(?=[\s\S])"""  # noqa: RUF001  CJK
)
_BREAKS = (
    re.compile(r"(?=\n[ \t\r]*\n)"),
    _SENTENCE_END,
    re.compile(r"(?=\n)"),
    re.compile(r"(?=\s)"),
)


class Chunk(Struct, frozen=True):
    ordinal: int
    text: str
    start: int
    """In characters; the document's `[start:end]` is `text`."""
    end: int
    heading: str
    """The path of headings above the text's start, `Guide > Install`; empty without headings."""


class _Section(Struct, frozen=True):
    start: int
    end: int
    heading: str


def chunk(text: str, *, size: int = CHUNK_CHARS, overlap: int = OVERLAP_CHARS) -> list[Chunk]:
    """The document in order, as chunks of at most `size` characters; [] where it is blank.

    Every character but white space is in a chunk. Of two neighbours that no heading parts the
    second repeats up to `overlap` characters of the first, whole sentences if there are any. With
    an overlap of up to a quarter of the size there are at most `4 * len(text) / size + 1` chunks.
    Raises ValueError for a size below 2 or an overlap of half the size or more.
    """
    if size < 2 or not 0 <= overlap < size // 2:
        raise ValueError(f"no chunks of {size} characters with an overlap of {overlap}")
    return [
        Chunk(ordinal, text[start:end], start, end, heading)
        for ordinal, (start, end, heading) in enumerate(
            (start, end, _heading_at(sections, start))
            for sections in _gathered(_sections(text), size / 4)
            for start, end in _spans(text, sections[0].start, sections[-1].end, size, overlap)
        )
    ]


def content_hash(chunk: Chunk) -> str:
    """SHA-256, in hexadecimal, of all that an embedding depends on: equal means no new one."""
    content = f"{chunk.heading}\n{chunk.text}"
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


def _sections(text: str) -> Iterator[_Section]:
    """The text between headings, without the white space around it; a heading begins its section.

    Headings without text of their own belong to the section below them.
    """
    titles: list[tuple[int, str]] = []
    start, has_body = 0, False
    for position, line, heading in _lines(text):
        if heading is None:
            has_body = has_body or not line.isspace()
            continue
        if has_body:
            yield from _trimmed(text, start, position, titles)
            start, has_body = position, False
        level, title = heading
        titles = [above for above in titles if above[0] < level]
        titles.append((level, title))
    yield from _trimmed(text, start, len(text), titles)


def _gathered(sections: Iterator[_Section], length_min: float) -> Iterator[list[_Section]]:
    """The sections in groups; only the last may be shorter than `length_min`."""
    group: list[_Section] = []
    for section in sections:
        group.append(section)
        if section.end - group[0].start >= length_min:
            yield group
            group = []
    if group:
        yield group


def _heading_at(sections: list[_Section], position: int) -> str:
    return next(s.heading for s in reversed(sections) if s.start <= position)


def _lines(text: str) -> Iterator[tuple[int, str, tuple[int, str] | None]]:
    """Position and text of each line, and level and title if it is a heading."""
    fence = ""
    for line in _LINE.finditer(text):
        content = line[0].rstrip()
        mark = _FENCE.fullmatch(content)
        heading = None
        if fence:
            # A fence is closed by one that is at least as long, of the same kind, and alone.
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
        elif mark:
            fence = mark[1]
        elif match := _HEADING.fullmatch(content):
            title = (match[2] or "")[:TITLE_CHARS_MAX]
            heading = len(match[1]), _CLOSING_MARKS.sub("", title).strip()
        yield line.start(), line[0], heading


def _trimmed(text: str, start: int, end: int, titles: list[tuple[int, str]]) -> Iterator[_Section]:
    start, end = _skip_space(text, start, end), _drop_space(text, start, end)
    if start < end:
        yield _Section(start, end, " > ".join(title for _, title in titles if title))


def _spans(text: str, start: int, end: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    while end - start > size:
        cut = _cut(text, start, size)
        yield start, _drop_space(text, start, cut)
        start = _next_start(text, cut, _skip_space(text, cut, end), overlap)
    yield start, end


def _cut(text: str, start: int, size: int) -> int:
    """Where the chunk that begins at `start` ends: late, and at the surest break.

    Always in the second half, so that the next chunk, overlap and all, ends later than this one.
    """
    first, last = start + size // 2, start + size
    for breaks in _BREAKS:
        cut = -1
        # One character more: it is what the last place is looked at for.
        for found in breaks.finditer(text, first, last + 1):
            cut = found.start()
        if cut >= 0:
            return cut
    return last


def _next_start(text: str, cut: int, following: int, overlap: int) -> int:
    """Where the next chunk begins: at a sentence or word before the cut, or at what follows it."""
    first = following - overlap
    if first >= cut:
        return following
    for breaks in (_SENTENCE_END, _BREAKS[-1]):
        if found := breaks.search(text, first, cut):
            return _skip_space(text, found.start(), following)
    # No place to break: a script without spaces, where any character may begin.
    return _skip_space(text, first, following)


def _skip_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _drop_space(text: str, start: int, end: int) -> int:
    while start < end and text[end - 1].isspace():
        end -= 1
    return end
