from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.errors import EventTooLongError
from butterbase.ai.wire.sse import Event, EventStreamDecoder, encode_event


def decode(*chunks: bytes) -> list[Event]:
    decoder = EventStreamDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    rest = decoder.close()
    return events if rest is None else [*events, rest]


def split(text: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(at), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
contents = st.sampled_from(
    [b"data: {}", b"data:x", b"data", b": comment", b"event: e", b"id", b"", b"", b"\xef\xbb\xbf"]
)
streams = (
    st.lists(st.tuples(contents, line_ends)).map(
        lambda lines: b"".join(text + end for text, end in lines)
    )
    | st.binary()
)


@given(streams.flatmap(lambda s: st.tuples(st.just(s), st.lists(st.integers(0, len(s))))))
def test_events_do_not_depend_on_how_the_bytes_are_split(case: tuple[bytes, list[int]]) -> None:
    text, at = case
    assert decode(*split(text, at)) == decode(text)


@given(streams)
def test_the_events_bytes_together_are_the_stream(text: bytes) -> None:
    assert b"".join(event.raw for event in decode(text)) == text


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b"data: 1\ndata: 2\n\n", [b"1\n2"]),
        (b"data:no space\n\n", [b"no space"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data\n\n", [b""]),
        (b"database: x\n\n", [None]),
        (b": keep-alive\n\ndata: a\n\n", [None, b"a"]),
        (b"event: message\nid: 7\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: half", [b"a", b"half"]),
        ("data: \u2028\n\n".encode(), ["\u2028".encode()]),
    ],
)
def test_data_of_events(text: bytes, data: list[bytes | None]) -> None:
    assert [event.data for event in decode(text)] == data


def test_an_event_comes_out_with_its_last_byte() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(b"data: a\r\n\r") == []
    assert decoder.feed(b"\n") == [Event(b"data: a\r\n\r\n", b"a")]


def test_an_event_beyond_the_limit_is_an_error() -> None:
    decoder = EventStreamDecoder(event_bytes_max=10)
    decoder.feed(b"data: 1234")
    with pytest.raises(EventTooLongError):
        decoder.feed(b"5")


@given(st.lists(st.text("ab{}", min_size=1), min_size=1).map("\n".join))
def test_encoded_data_decodes_to_itself(data: str) -> None:
    assert [event.data for event in decode(encode_event(data.encode()))] == [data.encode()]
