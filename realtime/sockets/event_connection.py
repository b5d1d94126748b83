"""One event stream: a socket from its request to its end."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

from butterbase.realtime.changes.hub import Subscriber
from butterbase.realtime.changes.subscriptions import parse_entry
from butterbase.realtime.errors import (
    InvalidSubscriptionError,
    ResyncRequiredError,
    TooManyConnectionsError,
    UnknownAppError,
)
from butterbase.realtime.session.channels import expired, is_expired
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets import event_stream as wire
from butterbase.realtime.sockets.open_sockets import CORKED_BYTES_MAX, REASONS, Apps, Connections
from butterbase.realtime.sockets.performer import AppRealtime
from butterbase.realtime.window.position import parse_position
from butterbase.sql.errors import ButterbaseError, InvalidTokenError

logger = logging.getLogger(__name__)

_END_OF_HEAD = b"\r\n\r\n"


class EventConnection(asyncio.Protocol):
    def __init__(
        self,
        apps: Apps,
        settings: RealtimeSettings,
        connections: Connections,
        *,
        received: bytes = b"",
    ) -> None:
        """`received` was read from the socket before."""
        self._apps = apps
        self._settings = settings
        self._connections = connections
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._serving: asyncio.Task[None] | None = None
        self._is_answered = False
        self._app: AppRealtime | None = None
        self._subscriber: Subscriber | None = None
        self._told_position = ""
        self._corked: list[bytes] = []
        self._corked_bytes = 0

    @property
    def app(self) -> AppRealtime | None:
        return self._app

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and are none.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._after(self._settings.handshake_timeout_s, self._abort_unanswered)
        received, self._received = self._received, b""
        self.data_received(received)

    def data_received(self, data: bytes) -> None:
        if self._serving is not None or self._is_answered:
            return  # there is nothing more to be said to us
        self._received += data
        head, end, _ = self._received.partition(_END_OF_HEAD)
        if len(head) > self._settings.request_bytes_max:
            self._answer(wire.too_large())
        elif end:
            self._received = b""
            self._on_head(head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        for timer in self._timers:
            timer.cancel()
        self._leave()

    # For the server and the hub

    def send(self, message: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            self._connections.frames_dropped += 1
            return
        self._connections.frames_sent += 1
        if not self._corked:
            self._connections.cork(self)
        self._corked.append(message)
        self._corked_bytes += len(message)
        if self._corked_bytes > CORKED_BYTES_MAX:
            self.uncork()

    def uncork(self) -> None:
        """Write what was sent in this turn of the event loop."""
        messages, self._corked, self._corked_bytes = self._corked, [], 0
        if not messages or self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(messages)
        if self._transport.get_write_buffer_size() > self._settings.write_buffer_bytes_max:
            # It could not be told; what it has not read it asks for when it comes again.
            self._leave()
            self._transport.abort()

    def close(self, code: Closing) -> None:
        """Tell why, and hang up once it is read."""
        was_live = self._subscriber is not None
        self._leave()
        if was_live:
            self.send(wire.closed(code.name.lower(), REASONS[code]))
        self._hang_up()

    def _is_full(self) -> bool:
        transport, bytes_max = self._transport, self._settings.write_buffer_bytes_max
        if transport is None:
            return False
        return transport.get_write_buffer_size() + self._corked_bytes > bytes_max // 8

    # Opening

    def _on_head(self, data: bytes) -> None:
        try:
            head = wire.read_head(data)
        except ButterbaseError as error:
            self._answer(wire.refusal(error))
            return
        if head.method == "OPTIONS":
            self._answer(wire.preflight(head))
        elif head.method != "GET":
            self._answer(wire.not_allowed())
        else:
            self._serving = self._loop.create_task(self._serve(head))

    async def _serve(self, head: wire.Head) -> None:
        try:
            await self._open(wire.read_request(head))
        except ButterbaseError as error:
            self._answer(wire.refusal(error, is_patient=wire.is_patient(head)))
        except Exception:
            logger.exception("an event stream could not be opened")
            self._answer(wire.refusal(ButterbaseError("the event stream could not be opened")))

    async def _open(self, request: wire.ChangesRequest) -> None:
        if len(self._connections) > self._settings.connection_count_max:
            raise TooManyConnectionsError
        app = self._apps(request.app_id)
        if app is None:
            raise UnknownAppError
        claims = app.authenticate(request.token)
        if is_expired(claims, time.time()):
            raise InvalidTokenError(expired(claims, time.time()))
        asked = [parse_entry(1, request.entry, self._settings.schemas)]
        missed: ResyncRequiredError | None = None
        try:
            prepared = await app.hub.prepare(claims, asked, request.since)
        except ResyncRequiredError as error:
            if not request.is_reconnect:
                raise
            missed = error
            prepared = await app.hub.prepare(claims, asked, parse_position(error.position))
        if prepared.problems:
            raise InvalidSubscriptionError(prepared.problems[0])
        # Nothing waits from here on: all that follows the position is sent behind the head.
        self._is_answered = True
        self._app = app
        self.send(wire.opening(str(prepared.since)))
        if missed is not None:
            self.send(wire.resync_required(missed))
        self._subscriber = Subscriber(
            topic="",
            version=wire.EventStream.V1,
            claims=claims,
            bindings=prepared.bindings,
            since=prepared.since,
            send=self.send,
            close=self.close,
            is_full=self._is_full,
        )
        app.hub.register(self._subscriber)
        self._after(self._settings.event_heartbeat_s, self._beat)
        if claims.expires_at is not None:
            self._after(claims.expires_at - time.time(), self._expire)

    # The rest of its life

    def _beat(self) -> None:
        if self._app is None or self._subscriber is None:
            return
        position = self._app.hub.progress_of(self._subscriber)
        text = "" if position is None else str(position)
        self.send(wire.beat(text if text != self._told_position else ""))
        self._told_position = text
        self._after(self._settings.event_heartbeat_s, self._beat)

    def _expire(self) -> None:
        if self._subscriber is None:
            return
        message = expired(self._subscriber.claims, time.time())
        self._leave()
        self.send(wire.closed("expired", message))
        self._hang_up()

    def _leave(self) -> None:
        if self._serving is not None and self._serving is not asyncio.current_task():
            self._serving.cancel()
        if self._subscriber is not None and self._app is not None:
            self._app.hub.unregister(self._subscriber)
        self._subscriber = None

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._is_answered:
            self._is_answered = True
            self._transport.write(answer)
            self._hang_up()

    def _hang_up(self) -> None:
        self.uncork()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            # Closing waits until all is written, which a client that does not read prevents.
            self._after(self._settings.close_timeout_s, self._transport.abort)

    def _abort_unanswered(self) -> None:
        if self._serving is None and self._transport is not None:
            self._transport.abort()

    def _after(self, delay_s: float, callback: Callable[[], None]) -> None:
        now_s = self._loop.time()
        self._timers = [timer for timer in self._timers if timer.when() > now_s]
        self._timers.append(self._loop.call_later(max(0.0, delay_s), callback))
