"""Compressed frames: the same messages, in fewer bytes, made once for all."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import OP_BINARY, OP_TEXT, Frame, Opcode
from websockets.streams import StreamReader

from butterbase.realtime.session.protocol import websocket_frame
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.deflate import BYTES_MIN, FACTORY, Deflater, window_bits
from tests.installation import Installation
from tests.realtime.streaming import Stream, streaming

LONG = b'{"record":{"body":"' + b"the same again " * 40 + b'"}}'


def agreed(server_window_bits: int | None) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    """What client and server come to where the client offers windows of that size."""
    client = ClientPerMessageDeflateFactory(server_max_window_bits=server_window_bits)
    answered, of_server = FACTORY.process_request_params(client.get_request_params(), [])
    of_client = client.process_response_params(answered, [])
    assert isinstance(of_client, PerMessageDeflate)
    assert isinstance(of_server, PerMessageDeflate)
    return of_client, of_server


def read(data: bytes, client: PerMessageDeflate) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parsing = Frame.parse(reader.read_exact, mask=False, extensions=[client])
    with pytest.raises(StopIteration) as ended:
        next(parsing)
    frame = ended.value.value
    assert isinstance(frame, Frame)
    return frame


@given(
    st.binary() | st.binary(max_size=200).map(lambda data: data * 400),
    st.sampled_from((OP_TEXT, OP_BINARY)),
    st.sampled_from((None, 8, 9, 12, 15)),
)
def test_the_client_reads_what_was_meant(data: bytes, opcode: Opcode, bits: int | None) -> None:
    client, server = agreed(bits)
    accepted = window_bits([server])
    frame = websocket_frame(data, opcode)
    deflater = Deflater()
    for _ in range(2):  # the second is remembered
        sent = frame if accepted is None else deflater.deflate(frame, accepted)
        assert len(sent) <= len(frame)
        got = read(sent, client)
        assert (got.opcode, bytes(got.data), got.fin) == (opcode, data, True)


def test_one_frame_is_compressed_once_for_each_size_of_window() -> None:
    deflater = Deflater()
    frame = websocket_frame(LONG)
    first = deflater.deflate(frame, 15)
    assert len(first) < len(frame) / 4
    assert deflater.deflate(frame, 15) is first
    assert deflater.deflate(frame, 9) is not first


def test_a_short_frame_is_sent_as_it_is() -> None:
    frame = websocket_frame(b"a" * (BYTES_MIN - 5))
    assert Deflater().deflate(frame, 15) is frame


def test_a_window_that_zlib_does_not_have_is_not_used() -> None:
    _, server = agreed(8)
    assert window_bits([server]) is None
    assert window_bits([]) is None


@pytest.fixture
async def compressing(installation: Installation) -> AsyncIterator[Stream]:
    async with streaming(installation, settings=RealtimeSettings(is_compressed=True)) as stream:
        yield stream


async def test_a_client_that_offers_it_is_sent_less(compressing: Stream) -> None:
    stream = compressing
    body = "the same again " * 400
    stream.execute("create table notes (id int primary key, body text)")
    service = stream.keys.role("service_role")
    wanted = {"event": "*", "schema": "public", "table": "notes"}
    async with (
        stream.client(service, compression="deflate") as reads_it,
        stream.client(service) as does_not,
    ):
        (extension,) = reads_it.socket.protocol.extensions
        assert isinstance(extension, PerMessageDeflate)
        assert extension.remote_no_context_takeover
        assert extension.local_no_context_takeover
        assert does_not.socket.protocol.extensions == []
        for client in (reads_it, does_not):
            await client.subscribe("realtime:notes", wanted)
        stream.execute(f"insert into notes values (1, '{body}')")  # noqa: S608  a constant
        for client in (reads_it, does_not):
            assert (await client.change())["record"] == {"id": 1, "body": body}
        # And what it sends is read: the client compresses as well.
        await reads_it.send("phoenix", "heartbeat", {"filler": body})
        assert (await reads_it.receive())["payload"]["status"] == "ok"


async def test_it_is_off_by_default(installation: Installation) -> None:
    async with (
        streaming(installation) as stream,
        stream.client(compression="deflate") as client,
    ):
        assert client.socket.protocol.extensions == []
