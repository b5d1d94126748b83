"""A websocket's way from an api worker to the stream process."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from butterbase.api.handover import HandOverError, hand_over_to
from butterbase.realtime.sockets.server import RealtimeServer
from butterbase.sql.errors import SettingError
from tests.clients.test_realtime_py import no_app
from tests.realtime.streaming import DEADLINE_S, eventually
from tests.serving import serving

TARGET = "/realtime/v1/websocket?apikey=x"


def nobody(_app_id: str) -> None:
    """No app: an adopted socket is answered 404 by the realtime server itself."""


async def refusal(url: str, target: str = TARGET) -> tuple[int, Any, Any]:
    with pytest.raises(InvalidStatus) as raised:
        async with asyncio.timeout(DEADLINE_S), connect(url.replace("http", "ws") + target):
            pass
    response = raised.value.response
    body = json.loads(response.body or b"")
    return response.status_code, body["error"], response.headers.get("Retry-After")


FROM_THE_STREAM = (404, "Tenant not found", None)
UNAVAILABLE = (503, "realtime is not running; try again", "2")


async def test_other_websockets_are_not_handed_over(tmp_path: Path) -> None:
    async with worker(tmp_path / "socket") as url:
        assert await refusal(url, "/v1/main/rest") == (404, "there is no websocket here", None)


async def test_both_paths_of_an_app_are_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = RealtimeServer(nobody)
    server.listen_hand_over(path)
    async with worker(path) as url:
        assert await refusal(url) == FROM_THE_STREAM
        assert await refusal(url, "/v1/main" + TARGET) == FROM_THE_STREAM
    await server.close()


async def test_a_restarted_stream_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with worker(path) as url:
        assert await refusal(url) == UNAVAILABLE
        for _ in range(2):
            server = RealtimeServer(nobody)
            server.listen_hand_over(path)
            assert await refusal(url) == FROM_THE_STREAM
            await server.close()
        assert await refusal(url) == UNAVAILABLE


async def test_a_stream_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(path))
        silent.listen(0)
        protocol = hand_over_to(path)
        peer, descriptor = protocol.peer, silent.fileno()
        # Fill the connection until the kernel takes no more.
        with suppress(HandOverError):
            for _ in range(10_000):
                peer.send(b"x" * 1000, descriptor)
        with pytest.raises(HandOverError):
            peer.send(b"x", descriptor)
        async with serving(no_app, ws=protocol) as url:
            assert await refusal(url) == UNAVAILABLE
        peer.close()


async def test_only_our_user_can_connect(tmp_path: Path) -> None:
    server = RealtimeServer(nobody)
    server.listen_hand_over(tmp_path / "socket")
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
    await server.close()
    assert not (tmp_path / "socket").exists()


async def test_a_second_stream_at_the_same_path_is_refused(tmp_path: Path) -> None:
    server = RealtimeServer(nobody)
    server.listen_hand_over(tmp_path / "socket")
    with pytest.raises(SettingError, match="another process listens there"):
        RealtimeServer(nobody).listen_hand_over(tmp_path / "socket")
    await server.close()


async def test_the_socket_of_a_stream_that_died_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    server = RealtimeServer(nobody)
    server.listen_hand_over(path)
    await server.close()


@asynccontextmanager
async def worker(path: Path) -> AsyncIterator[str]:
    """An api worker that hands over to the path; yields its URL."""
    protocol = hand_over_to(path)
    async with serving(no_app, ws=protocol) as url:
        yield url
    protocol.peer.close()


@pytest.mark.parametrize("kind", ["no descriptor", "two descriptors", "too long"])
async def test_what_is_no_hand_over_is_refused_and_leaks_no_descriptor(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "socket"
    server = RealtimeServer(nobody)
    server.listen_hand_over(path)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sender:
        sender.connect(str(path))
        before = len(os.listdir("/proc/self/fd"))
        message = b"x" * (70_000 if kind == "too long" else 10)
        descriptors = {"no descriptor": 0, "two descriptors": 2, "too long": 1}[kind]
        socket.send_fds(sender, [message], [theirs.fileno()] * descriptors)
        await eventually(lambda: bool(caplog.records))
        assert "refused" in caplog.text
        # The worker's connection to the server is the one that was accepted meanwhile.
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    await server.close()
