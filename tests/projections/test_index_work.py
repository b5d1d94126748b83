"""What goes to the model next, and what of a row is as before; without IO."""

from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.projections.indexes.passages import (
    Difference,
    Passage,
    SourceRow,
    Stored,
    compare,
    cut,
    source_hash,
)
from butterbase.projections.indexes.queue import Waiting
from butterbase.projections.indexes.versions import Version
from butterbase.projections.indexes.work import Work, next_batch
from butterbase.projections.tokens import EstimatedTokens

VERSION = Version(
    1, 1, "collection", "chunks", None, None, None, 200, 30, "english", UUID(int=1),
    "ai", "documents", ["id"], ["uuid"], ["content"], [], True,
)  # fmt: skip


def passage(ordinal: int, content: str, start: int = 0) -> Passage:
    end = start + len(content)
    return Passage("content", ordinal, content, "", None, start, end, f"hash {content}", 1, "")


def work(key: str, contents: list[str], *, priority: int = 0, attempts: int = 0) -> Work:
    row = Waiting(1, (key,), 1, 0, priority, attempts, None, None, False)
    new = [passage(n, content) for n, content in enumerate(contents)]
    return Work(row, VERSION, difference=Difference((), (), new), order=int(key))


def taken(works: list[Work], count_max: int = 8, chars_max: int = 1_000) -> list[tuple[str, str]]:
    batch = next_batch(works, count_max=count_max, chars_max=chars_max)
    return [(work.row.key[0], piece.content) for work, piece in batch]


def test_a_short_row_does_not_wait_for_a_long_one_which_goes_on() -> None:
    works = [work("1", [f"long {n}" for n in range(100)]), work("2", ["short"])]
    first = taken(works)
    assert first.count(("2", "short")) == 1
    assert sum(key == "1" for key, _ in first) == 7


def test_the_oldest_row_goes_on_however_many_short_ones_there_are() -> None:
    works = [work("1", [f"long {n}" for n in range(100)])]
    works += [work(str(n), ["short"]) for n in range(2, 100)]
    assert sum(key == "1" for key, _ in taken(works)) == 2


def test_what_was_just_written_goes_before_what_was_there() -> None:
    works = [work(str(n), ["old"], priority=1) for n in range(1, 20)] + [work("20", ["new"])]
    assert ("20", "new") in taken(works)


def test_a_text_of_a_row_that_failed_goes_alone_and_last() -> None:
    works = [work("1", ["poison"], attempts=1), work("2", ["a"]), work("3", ["b"])]
    assert taken(works) == [("2", "a"), ("3", "b")]
    assert taken(works) == [("1", "poison")]
    assert taken(works) == []


def test_a_text_that_a_row_has_twice_is_embedded_once() -> None:
    row = work("1", ["same", "other", "same"])
    assert taken([row]) == [("1", "same"), ("1", "other")]
    assert row.total == 2


@given(st.lists(st.lists(st.text(max_size=30), max_size=6), max_size=8), st.integers(1, 9))
def test_each_text_is_taken_once_within_the_limits(rows: list[list[str]], count_max: int) -> None:
    works = [work(str(n), contents) for n, contents in enumerate(rows, 1)]
    seen = []
    while batch := next_batch(works, count_max=count_max, chars_max=40):
        assert len(batch) <= count_max
        assert len(batch) == 1 or sum(len(piece.text) for _, piece in batch) <= 40
        for row, piece in batch:
            row.receive(piece, np.zeros(2, np.float32))
            seen.append((row.row.key[0], piece.content))
    assert sorted(seen) == sorted((str(n), t) for n, c in enumerate(rows, 1) for t in set(c))
    assert all(row.is_complete for row in works)


def test_passages_are_kept_moved_or_new() -> None:
    before = {
        ("content", n): Stored(f"hash {content}", start, start + 1, None)
        for n, (content, start) in enumerate([("a", 0), ("b", 5), ("c", 9)])
    }
    after = [passage(0, "a", 0), passage(1, "b", 6), passage(2, "d", 9), passage(3, "c", 12)]
    difference = compare(after, before)
    kept, moved, new = (
        [piece.content for piece in pieces]
        for pieces in (difference.kept, difference.moved, difference.new)
    )
    assert (kept, moved, new) == (["a"], ["b"], ["d", "c"])


@pytest.mark.parametrize(
    ("title", "content", "labels"),
    [
        ("", "A text.", [""]),
        ("Whales", "They sing.", ["Whales"]),
        ("  Of\n whales ", "They sing.", ["Of whales"]),
        ("Whales", "Whales sing.", [""]),
        ("Whales", "# whales\n\nThey sing.", ["whales"]),
        ("Animals", "# Whales\n\nThey sing.", ["Animals > Whales"]),
    ],
)
def test_passages_are_labelled_with_title_and_headings(
    title: str, content: str, labels: list[str]
) -> None:
    row = SourceRow(("1",), len(content), (("content", content),), "{}", title=title)
    passages = cut(row, VERSION, EstimatedTokens())
    assert [passage.label for passage in passages] == labels
    untitled = cut(msgspec.structs.replace(row, title=""), VERSION, EstimatedTokens())
    for passage, other in zip(passages, untitled, strict=True):
        assert passage.text == "\n".join(filter(None, (passage.label, passage.content)))
        # A title that is told apart from the text needs another vector.
        assert (passage.content_hash == other.content_hash) == (passage.label == other.label)
    assert (source_hash(row) == source_hash(msgspec.structs.replace(row, title=""))) == (not title)
