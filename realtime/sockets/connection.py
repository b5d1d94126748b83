"""One websocket: bytes in, the session's effects out.

websockets' sans-IO protocol reads; what is sent to many is written as bytes made once.
https://websockets.readthedocs.io/en/stable/howto/sansio.html
"""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from websockets.datastructures import MultipleValuesError
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSING, CONNECTING, OPEN
from websockets.server import ServerProtocol

from butterbase.realtime.errors import (
    InvalidFrameError,
    TooManyConnectionsError,
    UnknownAppError,
)
from butterbase.realtime.session import core
from butterbase.realtime.session.core import Effect, Session, Step
from butterbase.realtime.session.protocol import (
    Closing,
    Version,
    decode,
    decode_binary,
    encode,
    websocket_frame,
)
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.deflate import FACTORY, window_bits
from butterbase.realtime.sockets.handshake import (
    TOO_LARGE,
    answer_to,
    answer_to_unreadable,
    read_handshake,
)
from butterbase.realtime.sockets.open_sockets import CORKED_BYTES_MAX, REASONS, Apps, Connections
from butterbase.realtime.sockets.performer import AppRealtime as AppRealtime
from butterbase.realtime.sockets.performer import Performer
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)


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
        self._protocol = ServerProtocol(
            extensions=[FACTORY] if settings.is_compressed else None,
            max_size=settings.frame_bytes_max,
            logger=logger,
        )
        self._window_bits: int | None = None  # where the client takes compressed frames
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._corked: list[bytes] = []
        self._corked_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._app: AppRealtime | None = None
        self._session: Session | None = None
        self._performer: Performer | None = None
        self._opcode: Opcode | None = None  # of the message that is being read
        self._fragments = bytearray()  # a list of short ones would be many times as large

    @property
    def app(self) -> AppRealtime | None:
        """None before the upgrade."""
        return self._app

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
            self._connections.frames_dropped += 1
            return
        self._connections.frames_sent += 1
        if self._window_bits is not None:
            frame = self._connections.deflater.deflate(frame, self._window_bits)
        # A system call costs many times what all else about a frame does: those of one turn of the
        # event loop are written together.
        if not self._corked:
            self._connections.cork(self)
        self._corked.append(frame)
        self._corked_bytes += len(frame)
        if self._corked_bytes > CORKED_BYTES_MAX:
            self.uncork()

    def uncork(self) -> None:
        """Write what was sent."""
        frames, self._corked, self._corked_bytes = self._corked, [], 0
        if not frames or self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(frames)
        if self._protocol.state is OPEN and self._is_behind():
            self.close(Closing.OVERLOADED)

    def close(self, code: Closing) -> None:
        """Say goodbye; cut the socket when no answer comes in time."""
        self._drop_channels()
        self.uncork()
        if self._protocol.state is CONNECTING:
            self.abort()
        elif self._protocol.state is OPEN:
            self._protocol.send_close(code, REASONS[code])
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
            self._window_bits = window_bits(self._protocol.extensions)
            self._performer = Performer(
                app,
                session.version,
                self._settings,
                send=self.send,
                close=self.close,
                step=self._on_answer,
                is_full=self._is_full,
            )
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
        if frame.opcode in (OP_TEXT, OP_BINARY):
            self._opcode = frame.opcode
        elif frame.opcode is not OP_CONT:  # a ping, or what closes the socket
            self._session = core.on_heard(session, time.time())
            return
        self._fragments += frame.data
        if not frame.fin:
            self._session = core.on_heard(session, time.time())
            return
        data, self._fragments = bytes(self._fragments), bytearray()
        self._on_message(session, data, is_binary=self._opcode is OP_BINARY)

    def _on_message(self, session: Session, data: bytes, *, is_binary: bool) -> None:
        try:
            step = self._decide(session, data, is_binary=is_binary)
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

    def _decide(self, session: Session, data: bytes, *, is_binary: bool) -> Step:
        assert self._app is not None
        now_s = time.time()
        if is_binary:
            push = decode_binary(data, session.version)
            return core.on_push(session, push, now_s=now_s, settings=self._settings)
        data.decode()  # RFC 6455, section 8.1: whether or not it is a message
        return core.on_frame(
            session,
            decode(data, session.version),
            now_s=now_s,
            authenticate=self._app.authenticate,
            settings=self._settings,
        )

    # Effects

    def _step(self, step: Step) -> None:
        self._session, effects = step
        for effect in effects:
            if self._protocol.state is OPEN:  # what stands before may have closed it
                self._perform(effect, self._session.version)
        if self._protocol.state is OPEN:
            self._schedule()

    def _perform(self, effect: Effect, version: Version) -> None:
        assert self._performer is not None
        match effect:
            case core.Send(message):
                self.send(websocket_frame(encode(message, version)))
            case core.Close(code):
                self.close(code)
            case _:
                self._performer.perform(effect)

    def _on_answer(self, answer: Callable[[Session], Step]) -> None:
        self._step(answer(self._present()))

    def _present(self) -> Session:
        assert self._session is not None
        return self._session

    def _drop_channels(self) -> None:
        if self._performer is not None:
            self._performer.drop_all()

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
        self.uncork()  # it was sent before
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

    def _is_full(self) -> bool:
        """Whether what was missed can wait until the client has read more."""
        transport, bytes_max = self._transport, self._settings.write_buffer_bytes_max
        if transport is None:
            return False
        return transport.get_write_buffer_size() + self._corked_bytes > bytes_max // 8

    def _close_transport(self) -> None:
        assert self._transport is not None
        self._transport.close()
        # Closing waits until all is written, which a client that does not read prevents.
        self._restart_timer(self._settings.close_timeout_s, self.abort)
