"""Tables as text that a model can read and a passage can be cut from.

A small table is Markdown's. Of a long one, passages would begin far below the header; so each row
says its columns' names itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from butterbase.ai.documents.blocks import Block, Kind

SMALL_CHARS_MAX = 700
CELL_CHARS_MAX = 20_000
GROUP_ROW_COUNT = 100


def table_blocks(rows: list[list[str]]) -> Iterator[Block]:
    """A table; a long one in parts of so many lines."""
    if len(rows) <= GROUP_ROW_COUNT:
        yield Block(Kind.TABLE, render_table(rows))
        return
    lines = list(record_lines(rows))
    for start in range(0, len(lines), GROUP_ROW_COUNT):
        yield Block(Kind.TABLE, "\n".join(lines[start : start + GROUP_ROW_COUNT]))


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Of all rows, the first one being the header where it can be one; empty where no cell has
    text.
    """
    filled = [row for row in map(_row, rows) if any(row)]
    if not filled:
        return ""
    width = max(map(len, filled))
    filled = [[*row, *[""] * (width - len(row))] for row in filled]
    small = _markdown(filled)
    if len(small) <= SMALL_CHARS_MAX or len(filled) == 1:
        return small
    return "\n".join(record_lines(filled))


def record_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A line for each row that has text: `Name: Ann; City: Paris`. The first is the header, if it
    can be one.
    """
    iterator = iter(rows)
    first = next((cells for row in iterator if any(cells := _row(row))), None)
    if first is None:
        return
    names: Sequence[str] = first if is_header(first) else []
    for row in iterator if names else chain([first], iterator):
        if line := _record(names, _row(row)):
            yield line


def is_header(cells: Sequence[str]) -> bool:
    """Whether these can be names of columns: all different, short, and no numbers."""
    named = [cell for cell in cells if cell]
    return (
        len(named) * 2 > len(cells)
        and len(set(named)) == len(named)
        and all(len(cell) <= 100 and not _is_number(cell) for cell in named)
    )


def _record(names: Sequence[str], cells: Sequence[str]) -> str:
    parts = []
    for at, cell in enumerate(cells):
        if cell:
            name = names[at] if at < len(names) else ""
            parts.append(f"{name}: {cell}" if name else cell)
    return "; ".join(parts)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> list[str]:
    found = [" ".join(cell[:CELL_CHARS_MAX].split()) for cell in cells]
    while found and not found[-1]:
        found.pop()
    return found


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ".").rstrip("%"))
    except ValueError:
        return False
    return True
