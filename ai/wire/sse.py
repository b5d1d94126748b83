"""Server-sent events as they arrive: bytes → events that keep the bytes they came in.

An event is passed on by its own bytes, so nothing is encoded again.
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import re

from msgspec import Struct

from butterbase.ai.errors import EventTooLongError

# A carriage return counts once the next byte is here: it may be half of a CRLF.
_LINE_END = rb"(?>\r\n|\n|\r(?=[\s\S]))"
_BLANK_LINE = re.compile(_LINE_END + _LINE_END)
_BLANK_LINE_BYTES_MAX = 4
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(Struct, frozen=True):
    raw: bytes
    """What came, with the blank line that ends it; all events' `raw` together are the stream."""
    data: bytes | None
    """The `data` lines joined; None for a comment or other event without any."""


class EventStreamDecoder:
    """Feed it what arrives, in pieces of any size; each event comes out once it is whole."""

    def __init__(self, *, event_bytes_max: int = 16 * 1024**2) -> None:
        self._event_bytes_max = event_bytes_max
        self._buffer = bytearray()
        self._searched_bytes = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises EventTooLongError."""
        if not self._buffer and b"\r" not in chunk:
            return self._feed_plain(chunk)
        self._buffer += chunk
        events, start = [], 0
        while found := _BLANK_LINE.search(self._buffer, max(start, self._searched_bytes)):
            events.append(_event(bytes(self._buffer[start : found.end()])))
            start = found.end()
        del self._buffer[:start]
        self._searched_bytes = max(0, len(self._buffer) - _BLANK_LINE_BYTES_MAX + 1)
        self._check_length()
        return events

    def _feed_plain(self, chunk: bytes) -> list[Event]:
        """Without carriage returns, and with nothing before it: so most chunks are."""
        events, start = [], 0
        while (end := chunk.find(b"\n\n", start)) >= 0:
            events.append(_event(chunk[start : end + 2]))
            start = end + 2
        self._buffer += chunk[start:]
        self._searched_bytes = 0
        self._check_length()
        return events

    def _check_length(self) -> None:
        if len(self._buffer) > self._event_bytes_max:
            raise EventTooLongError(f"an event is longer than {self._event_bytes_max} bytes")

    def close(self) -> Event | None:
        """What stands after the last blank line, or None. A strict reader drops it."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return _event(rest) if rest else None


def _event(raw: bytes) -> Event:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw:
        return Event(raw, raw[6:-2])
    lines = raw.removeprefix(_BYTE_ORDER_MARK).splitlines()
    data = [
        line[5:].removeprefix(b" ")
        for line in lines
        if line.startswith(b"data:") or line == b"data"
    ]
    return Event(raw, b"\n".join(data) if data else None)


def encode_event(data: bytes) -> bytes:
    """The data as an event without a name."""
    return b"".join(b"data: %b\n" % line for line in data.splitlines()) + b"\n"
