"""A source row → its passages, without IO."""

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from butterbase.projections.chunking import (
    TITLE_CHARS_MAX,
    Chunk,
    Layout,
    chunk,
    content_hash,
    parse_layout,
)
from butterbase.projections.indexes.versions import Version
from butterbase.projections.tokens import Tokenizer


class SourceRow(Struct, frozen=True):
    """As it is in the table now."""

    key: tuple[str, ...]
    byte_count: int
    """Of all its texts."""
    texts: tuple[tuple[str, str], ...]
    """Column and content, of those that have any."""
    metadata: str
    """A JSON object, of what passages are filtered by."""
    layout: str | None = None
    """JSON; of a text that was a file."""
    title: str = ""
    """A document's."""
    updated_at: str | None = None
    """A document's, in Postgres's text format."""


class Passage(Struct, frozen=True):
    field: str
    ordinal: int
    content: str
    heading: str
    page: int | None
    start: int
    end: int
    content_hash: str
    """Of the label and the content."""
    tokens: int
    label: str
    """What is embedded, and found by its words, with the content: title and heading."""

    @property
    def place(self) -> tuple[str, int]:
        """What it is found by in its row."""
        return self.field, self.ordinal

    @property
    def text(self) -> str:
        """What is embedded."""
        return f"{self.label}\n{self.content}" if self.label else self.content


class Stored(Struct, frozen=True):
    """A passage that is published."""

    content_hash: str
    start: int
    end: int
    page: int | None


class Difference(Struct, frozen=True):
    """What publishing has to do for a row."""

    kept: Sequence[Passage]
    """They stay as they are."""
    moved: Sequence[Passage]
    """They stay, at another place of the text."""
    new: Sequence[Passage]
    """They replace whatever has their place."""


def source_hash(row: SourceRow) -> str:
    """Of all that the row's passages depend on."""
    content = msgspec.json.encode((row.texts, row.metadata, row.layout, row.title))
    return hashlib.sha256(content).hexdigest()


def cut(row: SourceRow, version: Version, tokenizer: Tokenizer) -> list[Passage]:
    """Takes seconds for the longest texts: call it in a thread. Raises msgspec.ValidationError for
    a layout that is none.
    """
    layout: Layout | None = None if row.layout is None else parse_layout(row.layout)
    return [
        _passage(field, piece, row.title)
        for field, text in row.texts
        for piece in chunk(
            text,
            size=version.chunk_tokens,
            overlap=version.overlap_tokens,
            tokenizer=tokenizer,
            layout=layout,
        )
    ]


def _passage(field: str, piece: Chunk, title: str) -> Passage:
    label = _label(title, piece)
    return Passage(
        field=field,
        ordinal=piece.ordinal,
        content=piece.text,
        heading=piece.heading,
        page=piece.page,
        start=piece.start,
        end=piece.end,
        content_hash=content_hash(msgspec.structs.replace(piece, heading=label)),
        tokens=piece.tokens,
        label=label,
    )


def _label(title: str, piece: Chunk) -> str:
    """The path of headings below the document's title, which many texts begin with anyway."""
    title = " ".join(title.split())[:TITLE_CHARS_MAX]
    start = title.casefold()
    if piece.heading.casefold().startswith(start):
        return piece.heading
    if not piece.heading:
        begins = piece.text.lstrip("# \t\n")[: len(title)].casefold() == start
        return "" if begins else title
    return f"{title} > {piece.heading}"


def compare(passages: Sequence[Passage], published: dict[tuple[str, int], Stored]) -> Difference:
    kept, moved, new = [], [], []
    for passage in passages:
        stored = published.get(passage.place)
        if stored is None or stored.content_hash != passage.content_hash:
            new.append(passage)
        elif (stored.start, stored.end, stored.page) == (passage.start, passage.end, passage.page):
            kept.append(passage)
        else:
            moved.append(passage)
    return Difference(kept, moved, new)
