import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.frames import (
    Keepalive,
    StandbyStatus,
    XLogData,
    decode_frame,
    encode_status,
)
from butterbase.ingest.lsn import LSN

uint64 = st.integers(0, 2**64 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


@given(uint64, uint64, int64, st.binary())
def test_log_data_is_its_header_and_a_payload(
    start: int, end: int, sent_at_us: int, payload: bytes
) -> None:
    data = b"w" + struct.pack("!QQq", start, end, sent_at_us) + payload
    assert decode_frame(data) == XLogData(LSN(start), LSN(end), sent_at_us, payload)


@given(uint64, int64, st.booleans())
def test_a_keepalive_may_ask_for_a_reply(end: int, sent_at_us: int, reply: bool) -> None:
    data = b"k" + struct.pack("!QqB", end, sent_at_us, reply)
    assert decode_frame(data) == Keepalive(LSN(end), sent_at_us, reply)


def test_a_status_tells_three_positions_a_time_and_whether_to_answer() -> None:
    status = StandbyStatus(
        written=LSN(2), flushed=LSN(1), sent_at_us=-(2**63), reply_requested=True
    )
    assert encode_status(status) == bytes.fromhex(
        "72 0000000000000002 0000000000000001 0000000000000001 8000000000000000 01"
    )


@pytest.mark.parametrize("data", [b"", b"w", b"k", b"w" * 24, b"k" * 17, b"k" * 19, b"r" * 34])
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_frame(data)


@given(st.binary())
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except MalformedMessageError:
        return
    assert isinstance(frame, XLogData | Keepalive)
