"""Blocks become one text whose places are where they are said to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.documents.assembly import Assembly, clean
from butterbase.ai.documents.blocks import Block, Info, Kind, heading
from butterbase.ai.documents.errors import DocumentEmptyError, DocumentTooLargeError

BLOCKS = st.lists(
    st.one_of(
        st.builds(
            Block,
            st.sampled_from([Kind.TEXT, Kind.TABLE]),
            st.text(max_size=40),
            page=st.none() | st.integers(1, 9),
        ),
        st.builds(heading, st.integers(0, 9), st.text(max_size=20), st.integers(1, 9)),
    ),
    max_size=12,
)


def assembled(blocks: list[Block], chars_max: int = 10_000) -> Assembly:
    assembly = Assembly(text_chars_max=chars_max)
    for block in blocks:
        assembly.add(block)
    return assembly


@given(BLOCKS)
def test_every_place_is_where_it_is_said_to_be(blocks: list[Block]) -> None:
    assembly = assembled(blocks)
    try:
        found = assembly.finish()
    except DocumentEmptyError:
        assert not any(clean(block.text).strip() for block in blocks)
        return
    layout = found.layout
    assert layout is not None
    assert "\x00" not in found.text
    found.text.encode()
    for start, level, text in layout.headings:
        line = found.text[start:].split("\n")[0]
        assert line == f"{'#' * level} {text}"
        assert 1 <= level <= 6
    for start, end in layout.tables:
        assert 0 <= start < end <= len(found.text)
    starts = [start for start, _ in layout.pages]
    numbers = [number for _, number in layout.pages]
    assert starts == sorted(set(starts))
    assert numbers == sorted(set(numbers))


@given(st.text())
def test_cleaning_again_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_text_beyond_the_limit_is_refused_before_it_is_kept() -> None:
    assembly = assembled([Block(Kind.TEXT, "12345")], 10)
    with pytest.raises(DocumentTooLargeError):
        assembly.add(Block(Kind.TEXT, "6789"))


def test_items_of_a_list_stay_together() -> None:
    items = [Block(Kind.TEXT, text) for text in ("- a", "- b", "after")]
    assert assembled(items).finish().text == "- a\n- b\n\nafter"


def test_markdown_has_no_layout() -> None:
    assembly = assembled([Block(Kind.TEXT, "# Title")])
    assembly.describe(Info(is_markdown=True))
    assert assembly.finish().layout is None
