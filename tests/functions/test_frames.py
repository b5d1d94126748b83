import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.functions.runtime.frames import (
    CHUNK_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    decode_credit,
    encode,
    encode_body,
    encode_credit,
)

FRAMES = st.lists(
    st.builds(
        Frame, st.sampled_from(FrameType), st.integers(0, 2**32 - 1), st.binary(max_size=300)
    ),
    max_size=8,
)


@given(FRAMES, st.lists(st.integers(0, 2000), max_size=8))
def test_frames_are_decoded_as_they_were_encoded_however_they_arrive(
    frames: list[Frame], cuts: list[int]
) -> None:
    data = b"".join(encode(*frame) for frame in frames)
    decoder, decoded = FrameDecoder(), []
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(marks):
        decoded += list(decoder.feed(data[start:end]))
    assert decoded == frames


@given(st.binary(max_size=2000))
def test_any_bytes_decode_or_raise(data: bytes) -> None:
    decoder = FrameDecoder(payload_bytes_max=100)
    try:
        for frame in decoder.feed(data):
            assert len(frame.payload) <= 100
    except FrameError:
        pass


def test_a_frame_that_would_not_fit_is_refused_before_it_is_held() -> None:
    head = struct.pack(">IBI", PAYLOAD_BYTES_MAX + 1, FrameType.DATA, 1)
    with pytest.raises(FrameError, match="a frame of"):
        list(FrameDecoder().feed(head))


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(FrameError, match="type 99"):
        list(FrameDecoder().feed(struct.pack(">IBI", 0, 99, 1)))


@given(st.binary(max_size=3 * CHUNK_BYTES_MAX))
def test_a_whole_body_is_its_chunks_and_an_end(body: bytes) -> None:
    frames = list(FrameDecoder().feed(encode_body(7, body)))
    assert b"".join(frame.payload for frame in frames) == body
    assert [frame.type for frame in frames[:-1]] == [FrameType.DATA] * (len(frames) - 1)
    assert frames[-1] == Frame(FrameType.END, 7)
    assert all(len(frame.payload) <= CHUNK_BYTES_MAX for frame in frames)


def test_credit_is_four_bytes() -> None:
    (frame,) = FrameDecoder().feed(encode_credit(3, 70_000))
    assert decode_credit(frame.payload) == 70_000
    with pytest.raises(FrameError):
        decode_credit(b"\0" * 3)
