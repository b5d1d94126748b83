import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.functions.runtime.sourcemaps import map_stack, parse_source_map

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def vlq(value: int) -> str:
    rest, text = (-value << 1 | 1) if value < 0 else value << 1, ""
    while True:
        digit, rest = rest & 31, rest >> 5
        text += ALPHABET[digit | (32 if rest else 0)]
        if not rest:
            return text


def encoded(lines: list[list[tuple[int, int, int, int]]], sources: list[str]) -> bytes:
    """Of segments (column, source, line, source column), sorted."""
    before, texts = (0, 0, 0), []
    for line in lines:
        column, segments = 0, []
        for at, *place in line:
            moved = [now - then for now, then in zip(place, before, strict=True)]
            segments.append("".join(map(vlq, [at - column, *moved])))
            column, before = at, (place[0], place[1], place[2])
        texts.append(",".join(segments))
    return json.dumps({"version": 3, "sources": sources, "mappings": ";".join(texts)}).encode()


PLACES = st.tuples(
    st.integers(0, 5000), st.integers(0, 2), st.integers(0, 5000), st.integers(0, 5000)
)
LINES = st.lists(
    st.lists(PLACES, max_size=5, unique_by=lambda place: place[0]).map(sorted), max_size=6
)


@given(LINES)
def test_each_segment_is_found_where_it_begins(
    lines: list[list[tuple[int, int, int, int]]],
) -> None:
    sources = ["a.ts", "b.ts", "c.ts"]
    found = parse_source_map(encoded(lines, sources))
    for number, line in enumerate(lines):
        for column, source, source_line, source_column in line:
            assert found.find(number, column) == (sources[source], source_line, source_column)


def test_a_stack_names_the_developers_files() -> None:
    source_map = parse_source_map(encoded([[], [(4, 0, 9, 2)]], ["src/index.ts"]))
    stack = (
        "Error: x\n"
        "    at handler (function:///f.js, <anonymous>:2:9)\n"
        "    at function:///f.js:2:5\n"
        "    at run (data:application/javascript;base64,Ly8......KTs=:698:52)\n"
        "    at AsyncLocalStorage.run (ext:deno_node/async_hooks.ts:1:1842)"
    )
    assert map_stack(stack, source_map) == (
        "Error: x\n    at handler (src/index.ts:10:3)\n    at src/index.ts:10:3"
    )


@pytest.mark.parametrize("position", ["1:1", "9:9", "2:1"])
def test_a_position_that_is_not_mapped_is_left(position: str) -> None:
    source_map = parse_source_map(encoded([[], [(4, 0, 9, 2)]], ["a.ts"]))
    frame = f"Error\n    at x (function:///f.js:{position})"
    assert map_stack(frame, source_map) == frame


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b'{"mappings": 3}', b'{"mappings": "A!"}', b'{"mappings": "AA"}'),
        *(b'{"mappings": "g"}', b'{"mappings": "ggggggggggggggg"}'),
    ],
)
def test_what_is_no_source_map_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="source map"):
        parse_source_map(content)


@given(st.text(max_size=300))
def test_any_stack_can_be_mapped(stack: str) -> None:
    map_stack(stack, parse_source_map(encoded([[(0, 0, 0, 0)]], ["a.ts"])))
