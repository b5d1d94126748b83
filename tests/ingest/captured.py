"""The captured messages of tests/data/pgoutput."""

import struct
from collections.abc import Iterator
from pathlib import Path

from butterbase.ingest.pgoutput.decoder import decode
from butterbase.ingest.pgoutput.messages import Message, StreamStart, StreamStop

DIRECTORY = Path(__file__).parents[1] / "data" / "pgoutput"
NAMES = sorted(path.stem for path in DIRECTORY.glob("*.sql"))


def payloads(name: str) -> Iterator[tuple[bytes, bool]]:
    """The messages of a capture, each with whether it stands inside a streamed block."""
    streaming = False
    for line in (DIRECTORY / f"{name}.hex").read_text().split():
        payload = bytes.fromhex(line)
        yield payload, streaming
        if payload[:1] in b"SE":
            streaming = payload[:1] == b"S"


def messages(name: str) -> list[Message]:
    return [decode(payload, streaming=streaming) for payload, streaming in payloads(name)]


def frame(payload: bytes, at: int = 0) -> bytes:
    """The message as the socket brings it."""
    return b"w" + struct.pack("!QQq", at, at, 0) + payload


def frames(name: str) -> list[bytes]:
    return [frame(payload) for payload, _ in payloads(name)]


def contents(name: str) -> list[Message]:
    """Without the blocks around them."""
    return [m for m in messages(name) if not isinstance(m, StreamStart | StreamStop)]
