"""HTML, read as browsers do; of a page of the web the main content.

https://selectolax.readthedocs.io, https://trafilatura.readthedocs.io
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from selectolax.lexbor import LexborHTMLParser

from butterbase.ai.documents.blocks import (
    PROPERTY_CHARS_MAX,
    Block,
    Found,
    Info,
    Kind,
    Source,
    heading,
)
from butterbase.ai.documents.parsers.characters import decode
from butterbase.ai.documents.tables import table_blocks

META_BYTES_MAX = 4096
"""The charset is named within the first 1,024, if a page is as it should be."""
MAIN_CHARS_MIN = 200
"""Less main content than this, and of less than a quarter of the page, was not found well."""

# fmt: off
_SKIPPED = frozenset({
    "head", "script", "style", "noscript", "template", "iframe", "object", "embed", "svg",
    "canvas", "audio", "video", "nav", "footer", "select", "button", "textarea", "input",
    "dialog", "-comment",
})
# fmt: on
# fmt: off
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "form", "header", "hgroup", "hr",
    "html", "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody",
    "td", "tfoot", "th", "thead", "tr", "ul", "h1", "h2", "h3", "h4", "h5", "h6",
})
# fmt: on
_HEADING = re.compile(r"h([1-6])")
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""")
# One that has these in it is there for the page's looks. The first found is the table itself.
_NO_CELLS = "table, h1, h2, h3, h4, h5, h6"
_SPACE = re.compile(r"[ \t\r\n\f]+")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


def parse(data: bytes, source: Source) -> Iterator[Found]:
    declared = _META_CHARSET.search(data[:META_BYTES_MAX].lower())
    charset = source.charset or (declared[1].decode() if declared else None)
    yield from parse_text(decode(data, charset), is_page=source.is_page)


def parse_text(text: str, *, is_page: bool = False) -> Iterator[Found]:
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    found = list(_blocks(tree.body))
    yield Info(title="" if title is None else _flat(title.text())[:PROPERTY_CHARS_MAX])
    if is_page:
        found = _main(text, found)
    yield from found


def _main(text: str, whole: list[Block]) -> list[Block]:
    """The page's main content, or the whole where there is none to be found."""
    # Imported for pages alone: it takes longer than most files.
    from trafilatura import extract

    html = extract(
        text,
        output_format="html",
        include_comments=False,
        include_formatting=True,
        fast=True,  # its other extractors read files when they are needed
    )
    main = list(_blocks(LexborHTMLParser(html).body)) if html else []
    length = _length(main)
    return main if length >= MAIN_CHARS_MIN or length * 4 >= _length(whole) else whole


def _length(blocks: list[Block]) -> int:
    return sum(len(block.text) for block in blocks)


class _Open(Struct):
    """An element whose children are gone through."""

    tag: str
    child: Any


class _Writer:
    """Collects text until a block ends it."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._prefix = ""
        self._rows: list[list[str]] | None = None
        """Of the table that is open."""
        self.pre_count = 0

    def write(self, text: str) -> None:
        self._parts.append(text if self.pre_count else _SPACE.sub(" ", text))

    def take(self) -> str:
        text = "".join(self._parts)
        self._parts.clear()
        if self.pre_count:
            return text.strip("\n")
        return "\n".join(line.strip() for line in _flat_lines(text)).strip()

    def enter(self, tag: str, node: Any) -> Iterator[Block]:
        if self._rows is not None:
            if tag == "tr":
                self._rows.append([])
            elif tag in {"td", "th"}:
                self._parts.clear()
            elif tag in _BLOCKS:
                self.write(" ")
            return
        if tag in _BLOCKS:
            yield from self.flush()
        if tag == "li":
            self._prefix = "- "
        elif tag == "pre":
            self.pre_count += 1
        elif tag == "table" and len(node.css(_NO_CELLS)) == 1:
            self._rows = []

    def leave(self, tag: str) -> Iterator[Block]:
        if self._rows is not None:
            if tag in {"td", "th"} and self._rows:
                self._rows[-1].append(_flat("".join(self._parts)))
                self._parts.clear()
            elif tag == "caption":
                yield from self.flush()
            elif tag == "table":
                rows, self._rows = self._rows, None
                self._parts.clear()
                yield from table_blocks(rows)
            return
        if found := _HEADING.fullmatch(tag):
            if text := self.take():
                yield heading(int(found[1]), text)
        elif tag in _BLOCKS:
            yield from self.flush()
        if tag == "pre":
            self.pre_count -= 1

    def flush(self) -> Iterator[Block]:
        if text := self.take():
            yield Block(Kind.TEXT, self._prefix + text)
            self._prefix = ""


def _blocks(body: Any) -> Iterator[Block]:
    """With a stack of its own: a page may be nested deeper than Python calls."""
    writer = _Writer()
    stack = [_Open("body", body.child)] if body is not None else []
    while stack:
        node = stack[-1].child
        if node is None:
            yield from writer.leave(stack.pop().tag)
            continue
        stack[-1].child = node.next
        tag = node.tag
        if tag == "-text":
            writer.write(node.text_content or "")
        elif tag == "br":
            writer.write("\n" if writer.pre_count else "\v")
        elif tag not in _SKIPPED and not _is_hidden(node):
            yield from writer.enter(tag, node)
            stack.append(_Open(tag, node.child))
    yield from writer.flush()


def _is_hidden(node: Any) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style") or ""))


def _flat_lines(text: str) -> list[str]:
    return [_SPACE.sub(" ", line) for line in text.split("\v")]


def _flat(text: str) -> str:
    return " ".join(text.split())
