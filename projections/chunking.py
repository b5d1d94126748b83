"""Texts to embed: a text → passages of a size that the embedding model sees whole.

Breaks are looked for at headings first, then blank lines, ends of sentences, ends of lines, and
words; inside of tables at their rows. A heading begins a chunk, unless less than a quarter of one
came before it: text of many headings would else have as many chunks. A text that was a file comes
with its layout. Of any other, headings that begin with `#` and fenced code, in which there are
none, are known (https://spec.commonmark.org/0.31.2/#atx-headings).
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from butterbase.projections.tokens import EstimatedTokens, Ruler, Tokenizer

CHUNK_TOKENS = 200
OVERLAP_TOKENS = 30
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
_TABLE_BREAKS = _BREAKS[2:]


class Layout(Struct, frozen=True):
    """Of a file's text. Positions are in characters, ascending."""

    pages: tuple[tuple[int, int], ...] = ()
    """Where each page begins, and its number."""
    headings: tuple[tuple[int, int, str], ...] = ()
    """Where each begins, its level and title."""
    tables: tuple[tuple[int, int], ...] = ()


class Chunk(Struct, frozen=True):
    ordinal: int
    text: str
    start: int
    """In characters; the document's `[start:end]` is `text`."""
    end: int
    heading: str
    """The path of headings above the text's start, `Guide > Install`; empty without headings."""
    tokens: int = 0
    page: int | None = None
    """Where the text starts."""


class _Heading(Struct, frozen=True):
    start: int
    end: int
    level: int
    title: str


class _Section(Struct, frozen=True):
    start: int
    end: int
    heading: str


class _Text(Struct, frozen=True):
    text: str
    ruler: Ruler
    size: int
    overlap: int
    tables: Sequence[tuple[int, int]]


_LAYOUT = msgspec.json.Decoder(Layout)
_ESTIMATED = EstimatedTokens()


def parse_layout(layout: str | bytes) -> Layout:
    """Raises msgspec.ValidationError."""
    return _LAYOUT.decode(layout)


def chunk(
    text: str,
    *,
    size: int = CHUNK_TOKENS,
    overlap: int = OVERLAP_TOKENS,
    tokenizer: Tokenizer = _ESTIMATED,
    layout: Layout | None = None,
) -> list[Chunk]:
    """The text in order, as chunks of at most `size` tokens; [] where it is blank.

    Every character but white space is in a chunk. Of two neighbours that no heading parts the
    second repeats up to `overlap` tokens of the first, whole sentences if there are any. With an
    overlap of up to a quarter of the size there are at most `4 * tokens / size + 1` chunks.
    Raises ValueError for a size below 2 or an overlap of half the size or more.
    """
    if size < 2 or not 0 <= overlap < size // 2:
        raise ValueError(f"no chunks of {size} tokens with an overlap of {overlap}")
    layout_ = layout or Layout()
    ruler = Ruler(text, tokenizer)
    measured = _Text(text, ruler, size, overlap, layout_.tables)
    headings = _markdown_headings(text) if layout is None else _layout_headings(text, layout)
    return [
        Chunk(
            ordinal,
            text[start:end],
            start,
            end,
            heading,
            tokens=ruler.count(start, end),
            page=_page_at(layout_.pages, start),
        )
        for ordinal, (start, end, heading) in enumerate(
            (start, end, _heading_at(sections, start))
            for sections in _gathered(_sections(text, headings), ruler, size / 4)
            for start, end in _spans(measured, sections[0].start, sections[-1].end)
        )
    ]


def content_hash(chunk: Chunk) -> str:
    """SHA-256, in hexadecimal, of all that an embedding depends on: equal means no new one."""
    content = f"{chunk.heading}\n{chunk.text}"
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()


def _sections(text: str, headings: Iterable[_Heading]) -> Iterator[_Section]:
    """The text between headings, without the white space around it; a heading begins its section.

    Headings without text of their own belong to the section below them.
    """
    titles: list[tuple[int, str]] = []
    start = body = 0
    for heading in headings:
        if _skip_space(text, body, heading.start) < heading.start:
            yield from _trimmed(text, start, heading.start, titles)
            start = heading.start
        titles = [above for above in titles if above[0] < heading.level]
        titles.append((heading.level, heading.title))
        body = heading.end
    yield from _trimmed(text, start, len(text), titles)


def _gathered(
    sections: Iterator[_Section], ruler: Ruler, tokens_min: float
) -> Iterator[list[_Section]]:
    """The sections in groups; only the last may have fewer than `tokens_min`."""
    group: list[_Section] = []
    for section in sections:
        group.append(section)
        if ruler.count(group[0].start, section.end) >= tokens_min:
            yield group
            group = []
    if group:
        yield group


def _heading_at(sections: list[_Section], position: int) -> str:
    return next(s.heading for s in reversed(sections) if s.start <= position)


def _page_at(pages: Sequence[tuple[int, int]], position: int) -> int | None:
    index = bisect_right(pages, position, key=lambda page: page[0])
    return pages[max(0, index - 1)][1] if pages else None


def _layout_headings(text: str, layout: Layout) -> Iterator[_Heading]:
    for start, level, title in layout.headings:
        line_end = text.find("\n", start)
        end = len(text) if line_end < 0 else line_end
        yield _Heading(start, end, level, title[:TITLE_CHARS_MAX].strip())


def _markdown_headings(text: str) -> Iterator[_Heading]:
    fence = ""
    for line in _LINE.finditer(text):
        content = line[0].rstrip()
        mark = _FENCE.fullmatch(content)
        if fence:
            # A fence is closed by one that is at least as long, of the same kind, and alone.
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = ""
        elif mark:
            fence = mark[1]
        elif match := _HEADING.fullmatch(content):
            title = _CLOSING_MARKS.sub("", (match[2] or "")[:TITLE_CHARS_MAX]).strip()
            yield _Heading(line.start(), line.end(), len(match[1]), title)


def _trimmed(text: str, start: int, end: int, titles: list[tuple[int, str]]) -> Iterator[_Section]:
    start, end = _skip_space(text, start, end), _drop_space(text, start, end)
    if start < end:
        yield _Section(start, end, " > ".join(title for _, title in titles if title))


def _spans(of: _Text, start: int, end: int) -> Iterator[tuple[int, int]]:
    while of.ruler.count(start, end) > of.size:
        cut = _cut(of, start)
        yield start, _drop_space(of.text, start, cut)
        start = _next_start(of, cut, _skip_space(of.text, cut, end))
    yield start, end


def _cut(of: _Text, start: int) -> int:
    """Where the chunk that begins at `start` ends: late, and at the surest break.

    Always in the second half, so that the next chunk, overlap and all, ends later than this one.
    """
    first, last = of.ruler.forward(start, of.size // 2), of.ruler.forward(start, of.size)
    breaks_: Sequence[re.Pattern[str]] = _BREAKS
    if table := _table_at(of.tables, last):
        if first <= table[0]:
            return table[0]
        first, breaks_ = max(first, table[0]), _TABLE_BREAKS
    for breaks in breaks_:
        cut = -1
        # One character more: it is what the last place is looked at for.
        for found in breaks.finditer(of.text, first, last + 1):
            cut = found.start()
        if cut >= 0:
            return cut
    return last


def _table_at(tables: Sequence[tuple[int, int]], position: int) -> tuple[int, int] | None:
    """The table that would be cut there."""
    index = bisect_right(tables, position, key=lambda table: table[0]) - 1
    if index < 0 or not tables[index][0] < position < tables[index][1]:
        return None
    return tables[index]


def _next_start(of: _Text, cut: int, following: int) -> int:
    """Where the next chunk begins: at a sentence or word before the cut, or at what follows it."""
    first = of.ruler.backward(following, of.overlap)
    if first >= cut or _table_at(of.tables, following):
        return following
    for breaks in (_SENTENCE_END, _BREAKS[-1]):
        if found := breaks.search(of.text, first, cut):
            return _skip_space(of.text, found.start(), following)
    # No place to break: a script without spaces, where any character may begin.
    return _skip_space(of.text, first, following)


def _skip_space(text: str, start: int, end: int) -> int:
    while start < end and text[start].isspace():
        start += 1
    return start


def _drop_space(text: str, start: int, end: int) -> int:
    while start < end and text[end - 1].isspace():
        end -= 1
    return end
