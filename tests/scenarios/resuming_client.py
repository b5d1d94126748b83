"""A websocket client that comes back whenever it is cut, and says where it was."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

TOPIC = "realtime:events"
RETRY_S = 0.05
HEARTBEAT_S = 5.0
ANSWER_WITHIN_S = 15.0


class RefusedError(Exception):
    """The join was answered with an error that coming back does not change."""


class ResumingClient:
    """Listens to inserts into one table, from a position on."""

    def __init__(self, url: str, key: str, *, position: str, **changes: str) -> None:
        """`url` of the websocket, without its query; `changes` is what is asked for beside."""
        self._url = f"{url}?apikey={key}&vsn=1.0.0"
        self._changes = {"event": "INSERT", "schema": "public", "table": "events", **changes}
        self.position = position
        self.ids: list[int] = []
        """Of all rows, in the order in which they came."""
        self.seen: set[int] = set()
        self.join_count = 0
        self.is_joined = False

    async def run(self) -> None:
        """Until cancelled. Raises RefusedError."""
        while True:
            # Cut, refused while nobody leads, or closed by a stream that restarts.
            with suppress(
                ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, TimeoutError
            ):
                async with connect(self._url, compression=None, open_timeout=5) as socket:
                    beating = asyncio.create_task(_beat(socket))
                    try:
                        await self._listen(socket)
                    finally:
                        beating.cancel()
            self.is_joined = False
            await asyncio.sleep(RETRY_S)

    async def _listen(self, socket: ClientConnection) -> None:
        config = {"postgres_changes": [self._changes], "resume": {"from": self.position}}
        await _send(socket, TOPIC, "phx_join", {"config": config})
        async with asyncio.timeout(ANSWER_WITHIN_S):
            if not await self._is_joined(socket):
                return
        self.join_count += 1
        self.is_joined = True
        async for text in socket:
            self._take(msgspec.json.decode(text))

    async def _is_joined(self, socket: ClientConnection) -> bool:
        async for text in socket:
            message = msgspec.json.decode(text)
            if message["event"] == "phx_reply" and message["topic"] == TOPIC:
                payload = message["payload"]
                if payload["status"] != "ok" and "esync" in str(payload):
                    raise RefusedError(payload)
                return bool(payload["status"] == "ok")
        return False

    def _take(self, message: dict[str, Any]) -> None:
        if message["event"] != "postgres_changes":
            return
        data = message["payload"]["data"]
        self.ids.append(data["record"]["id"])
        self.seen.add(self.ids[-1])
        self.position = data["position"]


async def _send(socket: ClientConnection, topic: str, event: str, payload: object) -> None:
    message = {"topic": topic, "event": event, "payload": payload, "ref": "1", "join_ref": "1"}
    await socket.send(msgspec.json.encode(message).decode())


async def _beat(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await _send(socket, "phoenix", "heartbeat", {})
