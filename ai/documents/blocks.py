"""What a parser finds, in order, and how its process tells it: a line of JSON each.

The process has read a stranger's file and may be in a stranger's hands; so what it says is typed,
bounded, and about nothing but that file's text (ai/documents/assembly.py).
"""

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

PROPERTY_CHARS_MAX = 1_000
MESSAGE_CHARS_MAX = 1_000


class Kind(StrEnum):
    HEADING = "heading"
    TEXT = "text"
    TABLE = "table"


class Block(Struct, frozen=True, tag="block", forbid_unknown_fields=True):
    """A heading, a paragraph or more, or a table as text."""

    kind: Kind
    text: str
    level: Annotated[int, Meta(ge=0, le=9)] = 0
    """Of a heading, from 1."""
    page: Annotated[int, Meta(ge=1)] | None = None
    """Page or slide on which it begins, from 1."""


class Info(Struct, frozen=True, tag="info", forbid_unknown_fields=True):
    """What the file says of itself."""

    title: Annotated[str, Meta(max_length=PROPERTY_CHARS_MAX)] = ""
    properties: dict[str, Annotated[str, Meta(max_length=PROPERTY_CHARS_MAX)]] = {}
    page_count: Annotated[int, Meta(ge=0)] | None = None
    is_markdown: bool = False
    """The text is Markdown as it was written, whose headings are found by their marks."""


class Progress(Struct, frozen=True, tag="progress", forbid_unknown_fields=True):
    pages_done: Annotated[int, Meta(ge=0)]
    page_count: Annotated[int, Meta(ge=0)]


class Failure(Struct, frozen=True, tag="failure", forbid_unknown_fields=True):
    code: str
    message: Annotated[str, Meta(max_length=MESSAGE_CHARS_MAX)]
    hint: Annotated[str, Meta(max_length=MESSAGE_CHARS_MAX)] | None = None


class Done(Struct, frozen=True, tag="done", forbid_unknown_fields=True):
    """The last line: without it the text is not whole."""


Found: TypeAlias = Block | Info | Progress
Line: TypeAlias = Block | Info | Progress | Failure | Done

DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class Source(Struct, frozen=True):
    """What is known of a file besides its bytes."""

    file_name: str = ""
    charset: str | None = None
    """As its content type says."""
    is_page: bool = False
    """A page of the web, with all that stands around its text."""


class Order(Struct, frozen=True):
    """The first line to a parsing process; the file's bytes follow."""

    type: str
    types: list[str]
    """All that may be met in the file, the parsers of which are to be at hand."""
    byte_count: int
    memory_bytes_max: int
    cpu_s_max: int
    text_chars_max: int
    is_jailed: bool
    source: Source


def heading(level: int, text: str, page: int | None = None) -> Block:
    """In one line, as deep as Markdown has them."""
    return Block(Kind.HEADING, " ".join(text.split()), min(max(level, 1), 6), page)
