"""One websocket: bytes in, the session's effects out.

websockets' sans-IO protocol reads; what is sent to many is written as bytes made once.
https://websockets.readthedocs.io/en/stable/howto/sansio.html
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, assert_never, cast

from msgspec import Struct
from websockets.datastructures import MultipleValuesError
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Frame
from websockets.http11 import Request, Response
from websockets.protocol import CLOSING, CONNECTING, OPEN
from websockets.server import ServerProtocol

from butterbase.realtime import session as core
from butterbase.realtime.errors import (
    InvalidFrameError,
    SessionEndedError,
    TooManyConnectionsError,
    UnknownAppError,
)
from butterbase.realtime.handshake import TOO_LARGE, answer_to, answer_to_unreadable, read_handshake
from butterbase.realtime.hub import Hub, Subscriber
from butterbase.realtime.protocol import (
    Closing,
    decode,
    encode,
    websocket_frame,
)
from butterbase.realtime.session import Effect, Session, Step
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import Claims
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

_REASONS: Final[dict[Closing, str]] = {
    Closing.IDLE: "no heartbeat",
    Closing.RESTART: "the server restarts",
    Closing.OVERLOADED: "too far behind",
    Closing.FAILED: "the server failed",
    Closing.INVALID_TEXT: "a text frame is not UTF-8",
    Closing.SESSION_ENDED: "the session has ended",
}


class AppRealtime(Struct, frozen=True):
    """What the sockets of one app need."""

    authenticate: core.Authenticate
    hub: Hub


Apps = Callable[[str], AppRealtime | None]
"""The app of an id; None where there is none."""


class Connections:
    """The sockets that are open."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> "Iterator[Connection]":
        return iter(list(self._open))

    def add(self, connection: "Connection") -> None:
        self._open.add(connection)
        self._is_empty.clear()

    def discard(self, connection: "Connection") -> None:
        self._open.discard(connection)
        if not self._open:
            self._is_empty.set()

    async def wait_empty(self) -> None:
        await self._is_empty.wait()


class Connection(asyncio.Protocol):
    """A socket from its upgrade request to its end."""

    def __init__(
        self,
        apps: Apps,
        settings: RealtimeSettings,
        connections: Connections,
        *,
        received: bytes = b"",
    ) -> None:
        """`received` was read from the socket before, by whoever hands it over."""
        self._apps = apps
        self._settings = settings
        self._connections = connections
        self._received = received
        self._request_bytes = 0
        self._protocol = ServerProtocol(max_size=settings.frame_bytes_max, logger=logger)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._app: AppRealtime | None = None
        self._session: Session | None = None
        self._fragments: list[bytes] = []
        self._preparations: dict[int, asyncio.Task[None]] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._subscribers: dict[int, Subscriber] = {}

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and are none.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._timer = self._loop.call_later(self._settings.handshake_timeout_s, self.abort)
        if self._received:
            self.data_received(self._received)
            self._received = b""

    def data_received(self, data: bytes) -> None:
        if self._protocol.state is CLOSING and self._is_behind():
            self.abort()  # it goes on asking, and does not read
            return
        if self._session is None:
            self._request_bytes += len(data)
            if self._request_bytes > self._settings.request_bytes_max:
                self._refuse(TOO_LARGE)
                return
        self._protocol.receive_data(data)
        if self._protocol.state is CONNECTING and self._protocol.handshake_exc is not None:
            self._refuse(answer_to_unreadable(self._protocol.handshake_exc.__cause__))
            return
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._open(event)
            elif isinstance(event, Frame):
                self._on_websocket_frame(event)
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._drop_channels()

    # For the server and the hub

    def send(self, frame: bytes) -> None:
        """Write a whole websocket frame, unless the socket is closing."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._protocol.state is not OPEN:
            return
        transport.write(frame)
        if self._is_behind():
            self.close(Closing.OVERLOADED)

    def close(self, code: Closing) -> None:
        """Say goodbye; cut the socket when no answer comes in time."""
        self._drop_channels()
        if self._protocol.state is CONNECTING:
            self.abort()
        elif self._protocol.state is OPEN:
            self._protocol.send_close(code, _REASONS[code])
            self._flush()
            self._restart_timer(self._settings.close_timeout_s, self.abort)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Opening

    def _open(self, request: Request) -> None:
        try:
            app, session = self._authenticate(request)
        except (ButterbaseError, MultipleValuesError) as error:
            self._protocol.send_response(answer_to(error))
            return
        except Exception as error:
            logger.exception("a websocket could not be opened")
            self._protocol.send_response(answer_to(error))
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._app, self._session = app, session
            self._schedule()

    def _refuse(self, response: Response) -> None:
        """Answer what the protocol could not read, or was not given to read."""
        assert self._transport is not None
        self._transport.write(response.serialize())
        self._close_transport()

    def _authenticate(self, request: Request) -> tuple[AppRealtime, Session]:
        if len(self._connections) > self._settings.connection_count_max:
            raise TooManyConnectionsError
        handshake = read_handshake(request.path, request.headers)
        app = self._apps(handshake.app_id)
        if app is None:
            raise UnknownAppError
        claims = app.authenticate(handshake.key)
        return app, Session(handshake.version, claims, handshake.key, heard_at_s=time.time())

    # Frames

    def _on_websocket_frame(self, frame: Frame) -> None:
        session = self._session
        if session is None or self._protocol.state is not OPEN:
            return
        if frame.opcode is OP_TEXT or frame.opcode is OP_CONT:
            is_text = frame.opcode is OP_TEXT or bool(self._fragments)
            if is_text:
                self._fragments.append(bytes(frame.data))
            if is_text and frame.fin:
                text = b"".join(self._fragments)
                self._fragments = []
                self._on_text(session, text)
                return
        elif frame.opcode is OP_BINARY:
            logger.debug("a binary frame is ignored")
        self._session = core.on_heard(session, time.time())

    def _on_text(self, session: Session, text: bytes) -> None:
        assert self._app is not None
        try:
            text.decode()  # RFC 6455, section 8.1: whether or not it is a message
            step = core.on_frame(
                session,
                decode(text, session.version),
                now_s=time.time(),
                authenticate=self._app.authenticate,
                settings=self._settings,
            )
        except UnicodeDecodeError:
            self.close(Closing.INVALID_TEXT)
        except InvalidFrameError as error:
            logger.debug("a frame is dropped: %s", error)
            self._session = core.on_heard(session, time.time())
        except Exception:
            logger.exception("a frame could not be answered")
            self.close(Closing.FAILED)
        else:
            self._step(step)

    # Effects

    def _step(self, step: Step) -> None:
        self._session, effects = step
        for effect in effects:
            self._perform(effect, self._session)
        if self._protocol.state is OPEN:
            self._schedule()

    def _perform(self, effect: Effect, session: Session) -> None:
        assert self._app is not None
        match effect:
            case core.Send(message):
                self.send(websocket_frame(encode(message, session.version)))
            case core.Close(code):
                self.close(code)
            case core.Prepare(key):
                task = self._loop.create_task(self._prepare(self._app.hub, effect))
                self._preparations[key] = task
            case core.Subscribe(key):
                self._subscribe(self._app.hub, effect, session)
            case core.Reauthorize(key, claims):
                if key in self._subscribers:
                    self._reauthorize(self._app.hub, self._subscribers[key], claims)
            case core.Unsubscribe(key):
                self._drop_channel(key)
            case _:
                assert_never(effect)

    async def _prepare(self, hub: Hub, effect: core.Prepare) -> None:
        try:
            prepared = await hub.prepare(effect.claims, effect.requests)
        except ButterbaseError as error:
            step = core.on_refused(self._present(), effect.key, effect.ref, error)
        except Exception:
            logger.exception("a join failed")
            self.close(Closing.FAILED)
            return
        else:
            step = core.on_prepared(self._present(), effect.key, effect.ref, prepared)
        self._preparations.pop(effect.key, None)
        self._step(step)

    def _present(self) -> Session:
        assert self._session is not None
        return self._session

    def _subscribe(self, hub: Hub, effect: core.Subscribe, session: Session) -> None:
        subscriber = self._subscribers[effect.key] = Subscriber(
            topic=effect.topic,
            version=session.version,
            claims=effect.claims,
            bindings=effect.prepared.bindings,
            since=effect.prepared.since,
            send=self.send,
            close=self.close,
        )
        hub.register(subscriber)

    def _reauthorize(self, hub: Hub, subscriber: Subscriber, claims: Claims) -> None:
        is_known = claims.session_id == subscriber.claims.session_id
        subscriber.claims = claims
        if not is_known:
            task = self._loop.create_task(self._check(hub, claims))
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _check(self, hub: Hub, claims: Claims) -> None:
        try:
            await hub.check(claims)
        except SessionEndedError:
            self.close(Closing.SESSION_ENDED)
        except ButterbaseError:  # whoever cannot be asked about is not let in
            self.close(Closing.FAILED)

    def _drop_channel(self, key: int) -> None:
        preparation = self._preparations.pop(key, None)
        if preparation is not None:
            preparation.cancel()
        subscriber = self._subscribers.pop(key, None)
        if subscriber is not None and self._app is not None:
            self._app.hub.unregister(subscriber)

    def _drop_channels(self) -> None:
        for check in self._checks:
            check.cancel()
        for key in [*self._preparations, *self._subscribers]:
            self._drop_channel(key)

    # Time

    def _schedule(self) -> None:
        due_s = core.deadline_s(self._present(), self._settings)
        # One that is due too early only looks and is set again.
        if due_s < self._timer_due_s or not self._timer_due_s:
            self._timer_due_s = due_s
            self._restart_timer(max(0.0, due_s - time.time()), self._on_time)

    def _on_time(self) -> None:
        self._timer_due_s = 0.0
        self._step(core.on_time(self._present(), time.time(), self._settings))

    def _restart_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, callback)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._close_transport()
        # Answers to pings are written here, and a client need not read them.
        if self._protocol.state is OPEN and self._is_behind():
            self.close(Closing.OVERLOADED)

    def _is_behind(self) -> bool:
        assert self._transport is not None
        return self._transport.get_write_buffer_size() > self._settings.write_buffer_bytes_max

    def _close_transport(self) -> None:
        assert self._transport is not None
        self._transport.close()
        # Closing waits until all is written, which a client that does not read prevents.
        self._restart_timer(self._settings.close_timeout_s, self.abort)
