"""permessage-deflate for frames that go to many: compressed once, sent as the same bytes.

With `server_no_context_takeover` a message is compressed by itself, so its bytes depend on no
socket; and with `client_no_context_takeover` a socket keeps no state for what it reads either.
RFC 7692, section 7.1.1: a server may answer both whether or not they were offered.
"""

import zlib
from collections.abc import Sequence
from typing import Final

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

FACTORY: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)

BYTES_MIN: Final = 160
"""Of a frame: a shorter one would hardly become smaller."""

_WINDOW_BITS_MIN: Final = 9  # zlib has no raw deflate with 8
_LEVEL: Final = 1
_END: Final = b"\x00\x00\xff\xff"
_RSV1: Final = 0x40
_LENGTH_OF_2: Final = 126
_LENGTH_OF_8: Final = 127


def window_bits(extensions: Sequence[Extension]) -> int | None:
    """Of the windows in which the peer will decompress; None where nothing may be compressed."""
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate):
            bits = extension.local_max_window_bits
            return bits if bits >= _WINDOW_BITS_MIN else None
    return None


class Deflater:
    """Remembers the frame before: the same one goes to one socket after the other."""

    def __init__(self) -> None:
        self._last: tuple[bytes, int, bytes] = b"", 0, b""

    def deflate(self, frame: bytes, bits: int) -> bytes:
        """A server's whole data frame, compressed where that makes it shorter."""
        if len(frame) < BYTES_MIN:
            return frame
        last, last_bits, deflated = self._last
        if frame is not last or bits != last_bits:
            deflated = _deflate(frame, bits)
            self._last = frame, bits, deflated
        return deflated


def _deflate(frame: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(_LEVEL, wbits=-bits)
    data = memoryview(frame)[_payload_at(frame) :]
    parts = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = parts.removesuffix(_END)
    head = bytes([frame[0] | _RSV1])
    deflated = head + _length(len(payload)) + payload
    return deflated if len(deflated) < len(frame) else frame


def _payload_at(frame: bytes) -> int:
    return 2 + {_LENGTH_OF_2: 2, _LENGTH_OF_8: 8}.get(frame[1], 0)


def _length(count: int) -> bytes:
    """RFC 6455, section 5.2; a server does not mask."""
    if count < _LENGTH_OF_2:
        return bytes([count])
    if count < 1 << 16:
        return bytes([_LENGTH_OF_2]) + count.to_bytes(2)
    return bytes([_LENGTH_OF_8]) + count.to_bytes(8)
