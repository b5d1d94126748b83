"""Chunks of any text and of Markdown."""

import tracemalloc
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.projections import chunking
from butterbase.projections.chunking import CHUNK_TOKENS, Chunk, Layout, content_hash
from butterbase.projections.tokens import GAP_CHARS_MAX, EstimatedTokens, Ruler, Starts


class Characters:
    """Each is a token, so that sizes can be seen."""

    def starts(self, text: str) -> Starts:
        return np.arange(len(text), dtype=np.int32)


chunk = partial(chunking.chunk, tokenizer=Characters())

PIECES = [
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "word",
    "A sentence. ",
    "Really?! ",
    "e\u0301",
    "数据库。",
]
PIECES += ["# Top\n", "## Below ##\n", "\n### Deeper\n", "####### seven\n", "```\n", "~~~ python\n"]
PIECES += ["x" * 70, "- item\n", "| a | b |\n", '"Quoted." ', "🦊", "\u2003", "\x1c", "\ud800"]

any_text = st.text(max_size=400) | st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
sizes = st.integers(2, 120).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, max(0, size // 2 - 1)))
)


@given(any_text, sizes)
def test_any_text_is_covered_in_order_by_chunks_within_the_limit(
    text: str, limits: tuple[int, int]
) -> None:
    size, overlap = limits
    chunks = chunk(text, size=size, overlap=overlap)
    assert [piece.ordinal for piece in chunks] == list(range(len(chunks)))
    covered = set[int]()
    for piece in chunks:
        assert text[piece.start : piece.end] == piece.text
        assert 1 <= len(piece.text) <= size
        assert piece.text == piece.text.strip()
        covered.update(range(piece.start, piece.end))
    assert all(index in covered for index, character in enumerate(text) if not character.isspace())
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        assert before.end - after.start <= overlap


@given(any_text)
def test_the_same_text_has_the_same_chunks_and_hashes(text: str) -> None:
    assert chunk(text, size=40, overlap=8) == chunk(text, size=40, overlap=8)
    assert all(len(content_hash(piece)) == 64 for piece in chunk(text, size=40, overlap=8))


@pytest.mark.parametrize("text", ["", " ", "\n\n\t\r\n", "\u2003\x1c"])
def test_blank_text_has_no_chunks(text: str) -> None:
    assert chunk(text) == []


def test_a_short_text_is_one_chunk() -> None:
    assert chunk("  Hello there.\n") == [Chunk(0, "Hello there.", 2, 14, "", tokens=12)]


GUIDE = """\
Before that.

# Guide

## Install ##

Run it.

### On *Linux*
Use apt.

## Use
Call it.
#not a heading
# Appendix
"""


def test_chunks_carry_the_path_of_headings() -> None:
    assert [(piece.heading, piece.text) for piece in chunk(GUIDE, size=40, overlap=0)] == [
        ("", "Before that."),
        ("Guide > Install", "# Guide\n\n## Install ##\n\nRun it."),
        ("Guide > Install > On *Linux*", "### On *Linux*\nUse apt."),
        ("Guide > Use", "## Use\nCall it.\n#not a heading"),
        ("Appendix", "# Appendix"),
    ]


@pytest.mark.parametrize("fence", ["```", "~~~", "   `````"])
def test_comments_in_fenced_code_are_no_headings(fence: str) -> None:
    text = f"# Shell\n{fence} sh\n# a comment\n``\n{fence}\nAfter.\n# Next\nEnd.\n"
    pieces = chunk(text, size=60, overlap=0)
    assert [piece.heading for piece in pieces] == ["Shell", "Next"]


def test_a_heading_that_ends_in_a_sharp_keeps_it() -> None:
    assert chunk("# About C#\nText.")[0].heading == "About C#"


def test_a_long_title_is_cut_in_the_path_and_whole_in_the_text() -> None:
    (piece,) = chunk(f"# {'t' * 300}\nText.", size=800)
    assert piece.heading == "t" * 100
    assert "t" * 300 in piece.text


def paragraph(word: str) -> str:
    return f"{word} is said first. Then {word} is said again."


def test_breaks_are_at_blank_lines_before_sentences() -> None:
    text = f"{paragraph('Alpha')}\n\n{paragraph('Beta')}"
    assert [piece.text for piece in chunk(text, size=70, overlap=0)] == [
        paragraph("Alpha"),
        paragraph("Beta"),
    ]


def test_breaks_are_at_sentences_before_words() -> None:
    text = 'The first one is here. "Second!" Third words follow'
    assert [piece.text for piece in chunk(text, size=35, overlap=0)] == [
        'The first one is here. "Second!"',
        "Third words follow",
    ]


def test_breaks_are_at_lines_before_words() -> None:
    assert [piece.text for piece in chunk("- one two\n- three four", size=15, overlap=0)] == [
        "- one two",
        "- three four",
    ]


def test_a_word_is_broken_only_if_it_is_longer_than_half_a_chunk() -> None:
    text = f"{'a' * 15} {'b' * 45}"
    assert [piece.text for piece in chunk(text, size=20, overlap=0)] == [
        "a" * 15,
        "b" * 20,
        "b" * 20,
        "b" * 5,
    ]


def test_a_chunk_repeats_whole_sentences_of_the_one_before() -> None:
    text = "One is first. Two comes next. Three is here. Four ends it."
    assert [piece.text for piece in chunk(text, size=45, overlap=20)] == [
        "One is first. Two comes next. Three is here.",
        "Three is here. Four ends it.",
    ]


def test_nothing_is_repeated_across_headings() -> None:
    first, second = chunk("# A\nSome text. More.\n# B\nOther.", size=60, overlap=20)
    assert first.end < second.start


def test_short_sections_share_a_chunk_below_the_heading_of_the_first() -> None:
    text = "# A\na.\n# B\nb.\n## C\nIt is long enough here.\n# D\nd."
    assert [(piece.heading, piece.text) for piece in chunk(text, size=60, overlap=0)] == [
        ("A", "# A\na.\n# B\nb.\n## C\nIt is long enough here."),
        ("D", "# D\nd."),
    ]


def test_a_long_section_after_a_short_one_keeps_its_own_heading() -> None:
    text = f"# A\na.\n# B\n{'Words of B. ' * 8}"
    first, *others = chunk(text, size=60, overlap=0)
    assert first.heading == "A"
    assert others
    assert {piece.heading for piece in others} == {"B"}


@given(any_text, st.integers(4, 120))
def test_the_number_of_chunks_is_bounded(text: str, size: int) -> None:
    assert len(chunk(text, size=size, overlap=size // 4)) <= 4 * len(text) / size + 1


def test_a_text_of_headings_has_no_more_chunks_than_others() -> None:
    text = "# a\nb\n" * 20_000
    assert len(chunk(text)) <= 4 * len(text) / CHUNK_TOKENS + 1


def test_a_long_text_takes_linear_time() -> None:
    # Each of these would take minutes if a pattern went back over what it has read.
    for text in ("\n" * 500_000, "# " + " " * 500_000 + "x", "`" * 500_000, "# #" * 200_000):
        assert sum(len(piece.text) for piece in chunk(text)) <= len(text) * 2


def test_a_place_is_measured_without_touching_all_of_a_long_text() -> None:
    ruler = Ruler("x" * 1_000_000, Characters())
    tracemalloc.start()
    try:
        assert ruler.count(499_000, 500_000) == 1000
        assert ruler.forward(499_000, 1000) == 500_000
        assert ruler.backward(500_000, 1000) == 499_000
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000, "a copy of the tokens, each time"


def test_a_hash_depends_on_text_and_heading_and_not_on_the_place() -> None:
    here = Chunk(0, "text", 0, 4, "Guide")
    assert content_hash(here) == content_hash(Chunk(7, "text", 90, 94, "Guide"))
    others = [Chunk(0, "text", 0, 4, ""), Chunk(0, "Text", 0, 4, "Guide")]
    assert len({content_hash(piece) for piece in [here, *others]}) == 3


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (0, 0), (100, 50), (100, -1)])
def test_sizes_that_make_no_chunks_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"{size} tokens"):
        chunk("text", size=size, overlap=overlap)


@given(any_text, sizes)
def test_chunks_by_tokens_cover_the_text_and_are_bounded_in_characters(
    text: str, limits: tuple[int, int]
) -> None:
    size, overlap = limits
    chunks = chunking.chunk(text, size=size, overlap=overlap)
    covered = set[int]()
    for piece in chunks:
        assert text[piece.start : piece.end] == piece.text
        assert piece.tokens <= size
        assert len(piece.text) <= (size + 1) * GAP_CHARS_MAX
        covered.update(range(piece.start, piece.end))
    assert all(index in covered for index, character in enumerate(text) if not character.isspace())


@pytest.mark.parametrize("text", ["\u200b" * 100_000, "x" * 100_000, "\x1c\u0301" * 50_000])
def test_what_has_few_tokens_is_cut_all_the_same(text: str) -> None:
    class One:
        def starts(self, text: str) -> Starts:
            return np.array([0], np.int32)

    for tokenizer in (One(), EstimatedTokens()):
        pieces = chunking.chunk(text, tokenizer=tokenizer)
        assert max(len(piece.text) for piece in pieces) <= (CHUNK_TOKENS + 1) * GAP_CHARS_MAX


def test_a_layout_tells_headings_and_pages() -> None:
    text = "Intro\n\nSome text here.\n\nMethods\n\n# not a heading, and more of it."
    layout = Layout(
        pages=((0, 1), (24, 2)),
        headings=((0, 1, "Intro"), (text.index("Methods"), 1, "Methods")),
    )
    pieces = chunk(text, size=60, overlap=0, layout=layout)
    assert [(piece.heading, piece.page) for piece in pieces] == [("Intro", 1), ("Methods", 2)]


def test_a_table_is_not_cut_if_it_fits_and_else_at_its_rows() -> None:
    rows = "".join(f"| row {number} | value |\n" for number in range(5))
    text = f"Words before the table are here. More. \n{rows}\nAfter it."
    start = text.index("|")
    layout = Layout(tables=((start, start + len(rows)),))
    first, second, *_ = chunk(text, size=70, overlap=0, layout=layout)
    assert first.text.endswith("More.")
    assert second.text.startswith("| row 0")
    _, beginning, *others = chunk(text, size=50, overlap=10, layout=layout)
    assert beginning.text.startswith("More. \n| row 0")
    assert others
    for piece in others:
        assert piece.text.startswith(("|", "After"))
