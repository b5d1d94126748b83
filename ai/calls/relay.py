"""A stream that has begun, on its way to the client.

Nothing is asked twice any more: what goes wrong from here on is told by an event in the stream.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.attempts import Begun, failure_of
from butterbase.ai.calls.call import Call, Status
from butterbase.ai.calls.recording import Recorder
from butterbase.ai.errors import (
    AiInternalError,
    AiStoppingError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from butterbase.ai.http.problems import wire_error
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.metering.costs import cost_comment
from butterbase.ai.metering.metering import meter_stream
from butterbase.sql.errors import ButterbaseError

KEPT_BYTES_MAX = 8 * 1024 * 1024
"""Of a stream, remembered until its end: what its provider does not tell is counted from it. What
follows is taken to have as many tokens for its bytes."""

USAGE_TIMEOUT_S = 0.5
"""For what a provider tells behind its answer, when the client has that and leaves."""

_log = logging.getLogger(__name__)


class Relay:
    def __init__(
        self,
        call: Call,
        asked: Asked,
        tariff: Tariff,
        begun: Begun,
        recorder: Recorder,
        *,
        has_left: Callable[[], bool],
        on_end: Callable[[list[bytes] | None], None],
    ) -> None:
        """`has_left` tells whether it is for the client's leaving that the call is cancelled;
        `on_end` is given the parts of an answer that is whole, and None for any other."""
        self._call = call
        self._asked = asked
        self._tariff = tariff
        self._begun = begun
        self._recorder = recorder
        self._has_left = has_left
        self._on_end = on_end
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._sent_bytes = 0
        self._is_closed = begun.is_closed
        self._is_late = False

    async def start(self) -> AsyncGenerator[bytes, None]:
        """The stream's parts. Closing it before its end cancels the call."""
        parts = self._parts()
        # What has not begun cannot be closed, and its call would not be recorded.
        await anext(parts)
        return parts

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        begun = self._begun
        status: Status = "ok"
        failure: ButterbaseError | None = None
        timer = asyncio.get_running_loop().call_at(begun.deadline_s, self._stop)
        try:
            yield b""
            part: bytes | None = begun.first
            while part is not None:
                if part:
                    self._keep(part)
                    yield part
                part = await self._next()
        except GeneratorExit:
            await self._hear_usage()
            self._end("cancelled", None)
            raise
        except asyncio.CancelledError:
            if self._has_left():
                await self._hear_usage()
                self._end("cancelled", None)
                raise
            status, failure = "cancelled", AiStoppingError(hint="try again in a moment")
        except ButterbaseError as error:
            status, failure = self._fault(error)
        except Exception:
            _log.exception("request %s: the stream failed", self._call.caller.request_id)
            status, failure = "failed", AiInternalError()
        finally:
            timer.cancel()
            begun.answer.close()
        self._end(status, failure)
        comment = cost_comment(self._call.cost_nanos)
        if failure is None:
            yield comment + begun.reader.ending()
        else:
            yield comment + begun.reader.failure(wire_error(failure))

    async def _next(self) -> bytes | None:
        """Bytes for the client, which may be none; None at the end. Raises UpstreamError."""
        reader, answer = self._begun.reader, self._begun.answer
        if reader.error is not None:
            raise UpstreamRefusedError(reader.error)
        if self._is_closed:
            return None
        if reader.is_done:
            await answer.drain()
            return None
        chunk = await answer.read()
        if chunk:
            return reader.feed(chunk)
        self._is_closed = True
        return reader.close()

    async def _hear_usage(self) -> None:
        """Of an answer that the client has got: its thoughts were in none of it, and it is not
        cheaper for whoever leaves before the last event."""
        if self._begun.reader.finish is None:
            return
        try:
            async with asyncio.timeout(USAGE_TIMEOUT_S):
                while not self._has_usage() and await self._next() is not None:
                    pass
        except (TimeoutError, UpstreamError, asyncio.CancelledError):
            pass

    def _has_usage(self) -> bool:
        return self._begun.reader.usage is not None

    def _keep(self, part: bytes) -> None:
        self._sent_bytes += len(part)
        if self._kept_bytes < KEPT_BYTES_MAX:
            self._kept.append(part)
            self._kept_bytes += len(part)

    def _stop(self) -> None:
        self._is_late = True
        self._begun.answer.close()

    def _fault(self, error: ButterbaseError) -> tuple[Status, ButterbaseError]:
        if self._is_late or isinstance(error, UpstreamTimeoutError):
            return "timeout", UpstreamTimeoutError()
        return "failed", error

    def _trace(self) -> None:
        trace, reader = self._call.trace, self._begun.reader
        if trace is None:
            return
        try:
            trace.read(reader.model, reader.finish, reader.usage)
        except Exception:  # who looks on cannot keep a call from its event
            _log.exception("request %s: its end is not traced", self._call.caller.request_id)

    def _end(self, status: Status, error: ButterbaseError | None) -> None:
        is_whole, opinion = status == "ok", self._begun.opinion
        if is_whole:
            opinion.good()
        elif isinstance(error, UpstreamError):
            opinion.bad(failure_of(error))
        else:
            opinion.none()
        meter_stream(
            self._call,
            self._asked,
            self._tariff,
            self._begun.reader.usage,
            self._kept,
            is_whole=is_whole,
            share=(self._sent_bytes, self._kept_bytes),
        )
        self._trace()
        self._recorder.end(self._call, status, error)
        self._on_end(self._kept if is_whole and self._kept_bytes < KEPT_BYTES_MAX else None)
