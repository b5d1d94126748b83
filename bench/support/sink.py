"""Many websockets in a process of their own, which count what arrives and do no more.

Run as a program. On standard input: a JSON line {host, port, ready, wanted, sockets}, then as many
lines [path, text]: the path of a socket's upgrade and the text frame that it sends first, or null.
On standard output: `ready` once each socket has received a frame with `ready` in it (null: once it
is open), then, after `wanted` frames with MARK in them, one JSON line: what `Arrivals` has.

Frames are not unmasked or parsed beyond their lengths, so that the sink is not what is measured.
"""

import base64
import json
import os
import re
import resource
import select
import socket
import sys
import time
from typing import Any, Final

MARK: Final = b"sent_us="
SAMPLED: Final = 64
"""Of so many frames the time of one is looked at."""

_STAMP: Final = re.compile(rb"sent_us=(\d+)")
_PATIENCE_S: Final = 60.0
_READ_BYTES: Final = 1 << 18
_PING: Final = b"\x89\x80" + bytes(4)


class Sink:
    def __init__(self, ready: bytes | None, wanted: int) -> None:
        self._ready = ready
        self._wanted = wanted
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        self.ready_count = 0
        self.frame_count = 0
        self.first_s = self.last_s = 0.0
        self.taken_ms: list[float] = []

    def open(self, address: tuple[str, int], path: str, text: str | None) -> None:
        """Raises RuntimeError where the upgrade is refused."""
        sock = socket.create_connection(address)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            part = sock.recv(4096)
            if not part:
                raise RuntimeError("the socket was closed before it was open")
            head += part
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode(errors="replace"))
        if text is not None:
            sock.sendall(_masked(text.encode()))
        sock.setblocking(False)
        self._sockets[sock.fileno()] = sock
        self._rest[sock.fileno()] = head.partition(b"\r\n\r\n")[2]
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def read_until_ready(self) -> None:
        if self._ready is not None:
            self._read(lambda: self.ready_count >= len(self._sockets))

    def ping(self) -> None:
        """Say on each socket that it lives: the first were opened long before the last."""
        for sock in self._sockets.values():
            sock.sendall(_PING)

    def read_all(self) -> None:
        self._read(lambda: self.frame_count >= self._wanted)

    def _read(self, is_done: Any) -> None:
        """Raises TimeoutError when nothing arrives for long."""
        heard_s = time.monotonic()
        while not is_done():
            ready = self._poll.poll(1.0)
            if ready:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _PATIENCE_S:
                raise TimeoutError(f"{self.ready_count} are ready, {self.frame_count} frames came")
            for descriptor, _ in ready:
                self._receive(descriptor)

    def _receive(self, descriptor: int) -> None:
        data = self._sockets[descriptor].recv(_READ_BYTES)
        if not data:
            raise RuntimeError("a socket was closed")
        now_s = time.time()
        data = self._rest[descriptor] + data
        at = 0
        while (end := _frame_end(data, at)) is not None:
            self._count(data, at, end, now_s)
            at = end
        self._rest[descriptor] = data[at:]

    def _count(self, data: bytes, at: int, end: int, now_s: float) -> None:
        if data.find(MARK, at, end) >= 0:
            self.first_s = self.first_s or now_s
            self.last_s = now_s
            self.frame_count += 1
            if self.frame_count % SAMPLED == 0:
                stamp = _STAMP.search(data, at, end)
                assert stamp is not None
                self.taken_ms.append(now_s * 1e3 - int(stamp[1]) / 1e3)
        elif self._ready is not None and data.find(self._ready, at, end) >= 0:
            self.ready_count += 1


def _frame_end(data: bytes, at: int) -> int | None:
    """Where the server's frame at this place ends; None while it is not whole (RFC 6455, 5.2)."""
    if len(data) < at + 2:
        return None
    length, start = data[at + 1], at + 2
    if length == 126:
        length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
    elif length == 127:
        length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
    end = start + length
    return end if end <= len(data) else None


def _masked(text: bytes) -> bytes:
    """A client's text frame; a mask of zeros is a mask."""
    if len(text) < 126:
        return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    order = json.loads(sys.stdin.readline())
    ready = order["ready"]
    sink = Sink(None if ready is None else ready.encode(), order["wanted"])
    for _ in range(order["sockets"]):
        path, text = json.loads(sys.stdin.readline())
        sink.open((order["host"], order["port"]), path, text)
    sink.read_until_ready()
    sink.ping()
    print("ready", flush=True)
    sink.read_all()
    found = {
        "frames": sink.frame_count,
        "seconds": sink.last_s - sink.first_s,
        "taken_ms": sorted(sink.taken_ms),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
