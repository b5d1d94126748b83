"""Blocks → one text, and where in it pages, headings and tables are.

Positions are in characters, as Postgres counts them, so that a passage's range can be read back.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from butterbase.ai.documents.blocks import Block, Info, Kind
from butterbase.ai.documents.errors import DocumentEmptyError, DocumentTooLargeError

# NUL is what Postgres cannot keep, surrogates what UTF-8 cannot; the rest is nothing to read.
_UNREADABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff\u00ad\u200b\ufeff]"
)
_SEPARATOR = "\n\n"
_ITEM = "- "


class Layout(Struct, frozen=True, rename="camel"):
    """What a text's characters do not say."""

    pages: list[tuple[int, int]]
    """Position and number of each page that has text; ascending in both."""
    headings: list[tuple[int, int, str]]
    """Position, level from 1, and text."""
    tables: list[tuple[int, int]]
    """Start and end."""
    page_count: int | None = None


class Extracted(Struct, frozen=True):
    """A file as text."""

    text: str
    layout: Layout | None
    """None: what is to be known is in the text, which is Markdown."""
    title: str
    properties: dict[str, str]


class Assembly:
    """Takes blocks in order. `text_chars_max` bounds what it holds."""

    def __init__(self, *, text_chars_max: int) -> None:
        self._text_chars_max = text_chars_max
        self._parts: list[str] = []
        self._length = 0
        self._pages: list[tuple[int, int]] = []
        self._headings: list[tuple[int, int, str]] = []
        self._tables: list[tuple[int, int]] = []
        self._info = Info()

    def describe(self, info: Info) -> None:
        self._info = info

    def add(self, block: Block) -> None:
        """Raises DocumentTooLargeError."""
        text = clean(block.text).strip("\n") if block.kind is not Kind.HEADING else _title(block)
        if not text or text.isspace():
            return
        if block.kind is Kind.HEADING:
            title, text = text, f"{'#' * max(block.level, 1)} {text}"
        separator = self._separator(text)
        start = self._length + len(separator)
        end = start + len(text)
        if end > self._text_chars_max:
            raise too_large(self._text_chars_max)
        self._note_page(block, start)
        if block.kind is Kind.HEADING:
            self._headings.append((start, max(block.level, 1), title))
        elif block.kind is Kind.TABLE:
            self._tables.append((start, end))
        self._parts += [separator, text]
        self._length = end

    def finish(self) -> Extracted:
        """Raises DocumentEmptyError."""
        if not self._parts:
            raise DocumentEmptyError(
                hint="pictures of text are not read: run text recognition over the file first"
                if self._info.page_count
                else None
            )
        info = self._info
        layout = Layout(self._pages, self._headings, self._tables, info.page_count)
        return Extracted(
            "".join(self._parts),
            None if info.is_markdown else layout,
            " ".join(clean(info.title).split()),
            {clean(name): clean(value) for name, value in info.properties.items()},
        )

    def _separator(self, text: str) -> str:
        """Items of a list stay together."""
        if not self._parts:
            return ""
        is_list = text.startswith(_ITEM) and self._parts[-1].startswith(_ITEM)
        return "\n" if is_list else _SEPARATOR

    def _note_page(self, block: Block, start: int) -> None:
        last = self._pages[-1][1] if self._pages else 0
        if block.page is not None and block.page > last:
            self._pages.append((start, block.page))


def clean(text: str) -> str:
    """With `\\n` at the ends of lines, and without what nobody can read."""
    return _UNREADABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def too_large(text_chars_max: int) -> DocumentTooLargeError:
    return DocumentTooLargeError(
        f"there are more than {text_chars_max} characters of text in it",
        hint="send it in several parts",
    )


def paragraphs(text: str) -> Iterator[str]:
    """The parts between blank lines."""
    for part in re.split(r"\n[ \t]*\n\s*", clean(text)):
        if stripped := part.strip():
            yield stripped


def _title(block: Block) -> str:
    return " ".join(clean(block.text).split())
