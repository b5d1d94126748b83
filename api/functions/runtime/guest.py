"""One jailed process as the host sees it: the far end of its frames.

Nothing that it sends is believed: a frame that breaks the protocol ends the process.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, cast

import msgspec

from butterbase.api.functions.runtime.asking import Requests
from butterbase.api.functions.runtime.budget import WorkBudget
from butterbase.api.functions.runtime.call import (
    Call,
    encode_head,
    parse_head,
    parse_thrown,
)
from butterbase.api.functions.runtime.endings import cause_of
from butterbase.api.functions.runtime.errors import (
    FunctionCpuError,
    FunctionCrashedError,
    FunctionError,
    FunctionExitedError,
    FunctionMemoryError,
    FunctionTimeoutError,
)
from butterbase.api.functions.runtime.frames import (
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    decode_credit,
    encode,
    encode_body,
    encode_load,
)
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.interpreting import Interpreter
from butterbase.api.functions.runtime.jail.spawner import Spawned
from butterbase.api.functions.runtime.jail.zygote import Ended
from butterbase.api.functions.runtime.model import (
    CallRequest,
    FunctionVersion,
)
from butterbase.api.functions.runtime.processes import ProcessMeter
from butterbase.api.functions.runtime.surroundings import Surroundings

logger = logging.getLogger(__name__)

UNREAD_BYTES_MAX: Final = 64 * 1024**2
"""Of what a process was sent; windows of all its streams are less."""
PONG_WITHIN_S: Final = 1.0
COMPUTES_MS: Final = 100
"""A call that uses more processor time gives way to others."""
_STDERR_CHARS_MAX: Final = 500


class Guest(asyncio.Protocol):
    """A process from its boot to its end."""

    def __init__(self, spawned: Spawned, around: Surroundings, changed: Callable[[], None]) -> None:
        """`changed` is called whenever there may be room for a call, or none any more."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._spawned = spawned
        self._around = around
        self._changed = changed
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._meter = ProcessMeter(spawned.pid)
        self._cpu_seen_ns = 0
        self._has_stepped_back = False
        self._booted_bytes = 0
        self.call_count = 0
        self._requests = Requests(around.services, self.write, self._asking)
        self._interpreter: Interpreter | None = None
        self._cause: Callable[[], FunctionError] | None = None
        self._pong: asyncio.Future[None] | None = None
        self._budget = WorkBudget(loop.time())
        self.version: FunctionVersion | None = None
        self.calls: dict[int, Call] = {}
        self.reserved_count = 0
        self.is_retired = False
        self.is_dead = False
        self.started_s = self.idle_since_s = loop.time()
        self.idle_cpu_ns = 0
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        spawned.ended.add_done_callback(lambda done: self._process_ended(done.result()))

    @property
    def pid(self) -> int:
        return self._spawned.pid

    @property
    def load_count(self) -> int:
        """Calls in it, and on their way."""
        return len(self.calls) + self.reserved_count

    @property
    def has_room(self) -> bool:
        version = self.version
        return (
            version is not None
            and not (self.is_retired or self.is_dead)
            and self.load_count < version.limits.concurrency_max
        )

    async def connect(self) -> None:
        """Until it is ready. Raises FunctionCrashedError."""
        await self._loop.connect_accepted_socket(lambda: self, self._spawned.channel)
        await self.ready
        self._booted_bytes = self._meter.memory_bytes()

    # -- what the host asks of it --

    def load(self, version: FunctionVersion) -> None:
        """Once, before its first call."""
        assert self.version is None
        self.version = version
        self._interpreter = Interpreter(version)
        self._requests.allowed = AllowList.parse(version.permissions.net)
        head = {
            "app_id": version.app_id,
            "name": version.name,
            "revision": version.revision,
            "env": version.env,
            "api_url": self._around.api_url,
        }
        self.write(encode_load(msgspec.json.encode(head), version.bundle))

    def open(self, request: CallRequest, whole: bytes | None) -> Call:
        """A call, with its body where that is there as a whole and no larger than a window."""
        assert self.version is not None
        self._settle_cpu()
        self.call_count += 1
        call = Call(2 * self.call_count - 1, self.version, request.context, self.write)
        self.calls[call.id] = call
        frames = encode(FrameType.OPEN, call.id, encode_head(request))
        if whole is not None:
            frames += encode_body(call.id, whole)
            call.outgoing.spend_whole(len(whole))
        self.write(frames)
        wall_s = self.version.limits.wall_ms / 1000
        call.timer = self._loop.call_later(wall_s, self._expire, call)
        return call

    def cancel(self, call: Call) -> None:
        """Its client has left: the function is told, and may end in its own time."""
        if call.id in self.calls:
            self.write(encode(FrameType.RESET, call.id))
            call.body.drop()
            call.outgoing.close()

    def abandon(self, call: Call, error: FunctionError) -> None:
        """Do not wait for it any more."""
        if call.id in self.calls:
            told = msgspec.json.encode({"message": error.message, "is_permission": False})
            self.write(encode(FrameType.RESET, call.id, told))
            self._fail(call, error)

    @property
    def is_ending(self) -> bool:
        """It takes no more calls, and has none."""
        return self.is_retired and not self.load_count

    def retire(self, *, pause_s: float = 0) -> None:
        """Take no more calls, and end after the last one, no sooner than after the pause."""
        self.is_retired = True
        if pause_s:
            self._loop.call_later(pause_s, self.retire)
        elif not (self.load_count or self.is_dead):
            self.kill()
        self._changed()

    def kill(self, cause: Callable[[], FunctionError] | None = None) -> None:
        """`cause` is what its calls fail with; they do so as soon as it is gone."""
        self._cause = self._cause or cause
        self.is_retired = True
        self._around.spawner.kill(self.pid)

    def write(self, data: bytes) -> None:
        # Its end of the channel may be gone before we are told of its death.
        if self._transport is not None and not (self.is_dead or self._transport.is_closing()):
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
                logger.warning("a function's process was ended: it does not read")
                self.kill(_broken)

    def watch(self) -> None:
        """Look whether its calls use more than they may."""
        self._settle_cpu()
        if self.version is None or not self.calls:
            return
        memory_bytes = self.memory_bytes()
        for call in self.calls.values():
            call.memory_bytes = max(call.memory_bytes, memory_bytes)
        if not self._has_stepped_back and any(
            call.cpu_ns > COMPUTES_MS * 1e6 for call in self.calls.values()
        ):
            self._has_stepped_back = True
            self._meter.step_back()
        limits = self.version.limits
        memory_mb = min(limits.memory_mb, self._around.memory_mb_max)
        if memory_bytes - self._booted_bytes > memory_mb * 1024**2:
            self.kill(FunctionMemoryError)
        elif any(call.cpu_ns > limits.cpu_ms * 1e6 for call in self.calls.values()):
            self.kill(FunctionCpuError)

    def memory_bytes(self) -> int:
        return self._meter.memory_bytes()

    def cpu_ns(self) -> int:
        return self._meter.cpu_ns()

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and are none.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._budget.read()
        try:
            for frame in self._decoder.feed(data):
                self._budget.spend(frame)
                self._take(frame)
        except (FrameError, RecursionError) as error:
            logger.warning("a function's process was ended: %s", error)
            self.kill(_broken)
            return
        pause_s = self._budget.pause_s(self._loop.time())
        if pause_s > 0 and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(pause_s, self._let_on)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.is_dead:
            self.kill()

    # -- what it says --

    def _take(self, frame: Frame) -> None:
        if frame.stream == 0:
            self._take_own(frame)
        elif frame.stream % 2:
            self._take_of_call(frame)
        else:
            self._requests.take(frame)

    def _take_own(self, frame: Frame) -> None:
        match frame.type:
            case FrameType.READY:
                if not self.ready.done():
                    self.ready.set_result(None)
            case FrameType.LOADED:
                self._loaded(frame.payload)
            case FrameType.LOG:
                self._log(next(iter(self.calls.values()), None), frame.payload)
            case FrameType.FAULT:
                self._fault(list(self.calls.values()), frame.payload)
            case FrameType.PONG:
                if self._pong is not None and not self._pong.done():
                    self._pong.set_result(None)
            case _:
                raise FrameError(f"{frame.type.name} of no stream")

    def _take_of_call(self, frame: Frame) -> None:
        if frame.stream > 2 * self.call_count:
            raise FrameError("a call that was not made")
        call = self.calls.get(frame.stream)
        if call is None:  # it ended while this was on its way
            return
        match frame.type:
            case FrameType.DATA | FrameType.END | FrameType.CREDIT:
                self._take_body(call, frame)
            case FrameType.HEAD:
                call.answer(parse_head(frame.payload))
            case FrameType.LOG:
                self._log(call, frame.payload)
            case FrameType.RESET if self._interpreter is not None:
                call.fail(self._interpreter.failed(parse_thrown(frame.payload), call.context))
            case FrameType.FAULT:
                self._fault([call], frame.payload)
            case FrameType.DONE:
                self._finish(call)
            case _:
                raise FrameError(f"{frame.type.name} of a call")

    def _take_body(self, call: Call, frame: Frame) -> None:
        match frame.type:
            case FrameType.DATA:
                call.body.push(frame.payload)
                if isinstance(call.body.error, FunctionError):
                    self.abandon(call, call.body.error)
            case FrameType.END:
                call.body.end()
            case _:
                call.outgoing.grant(decode_credit(frame.payload))

    def _loaded(self, payload: bytes) -> None:
        if self._interpreter is None:
            raise FrameError("loaded without a function")
        error = self._interpreter.load_error(payload)
        if error is not None:
            self._fail_all(list(self.calls.values()), lambda _: error)

    def _fault(self, calls: list[Call], payload: bytes) -> None:
        """The process is not used any more: what its calls share may be half done."""
        thrown, interpreter = parse_thrown(payload), self._interpreter
        if interpreter is None:
            raise FrameError("an error without a function")
        self._fail_all(calls, lambda call: interpreter.unhandled(thrown, call.context))

    def _fail_all(self, calls: list[Call], error_of: Callable[[Call], FunctionError]) -> None:
        self.is_retired = True
        for call in calls:
            self._fail(call, error_of(call))
        if not self.load_count:
            self.kill()

    def _log(self, call: Call | None, payload: bytes) -> None:
        if call is None or self._interpreter is None or call.logs.is_full:
            return
        said = self._interpreter.line(payload, call.context, at_s=time.time())
        if line := call.logs.add(said):
            self._around.recorder.log(call.version, call.context, line)

    def _asking(self, number: int) -> Call | None:
        """Code that runs outside of a call asks for the oldest one."""
        return self.calls.get(number) if number else next(iter(self.calls.values()), None)

    # -- ends --

    def _expire(self, call: Call) -> None:
        """Out of time. What the function still does for it must not go on in its process."""
        self.is_retired = True
        self.abandon(call, FunctionTimeoutError())
        if self.calls:
            self._pong = self._loop.create_future()
            self.write(encode(FrameType.PING, 0))
            self._loop.call_later(PONG_WITHIN_S, self._check_pong)

    def _check_pong(self) -> None:
        if self._pong is not None and not self._pong.done() and not self.is_dead:
            self.kill(FunctionCrashedError)

    def _fail(self, call: Call, error: FunctionError) -> None:
        call.fail(error)
        self._finish(call)

    def _finish(self, call: Call) -> None:
        self._settle_cpu()
        call.memory_bytes = max(call.memory_bytes, self.memory_bytes())
        del self.calls[call.id]
        self._requests.end_call(call.id)
        call.end()
        if not self.load_count:
            self.idle_since_s = self._loop.time()
            self.idle_cpu_ns = self._cpu_seen_ns
            if self.is_retired:
                self.kill()
        self._changed()

    def _settle_cpu(self) -> None:
        """Share what was used since the last time among the calls there were."""
        seen = self._meter.cpu_ns()
        used, self._cpu_seen_ns = seen - self._cpu_seen_ns, seen
        if self.calls and used > 0:
            for call in self.calls.values():
                call.cpu_ns += used / len(self.calls)

    def _let_on(self) -> None:
        if self._transport is not None and not self.is_dead:
            self._transport.resume_reading()

    def _process_ended(self, ended: Ended) -> None:
        self.is_dead = self.is_retired = True
        error = (self._cause or (lambda: cause_of(ended)))()
        if self._cause is None and self.calls:
            logger.info("a function's process ended with %s", ended.status)
        if not self.ready.done():
            text = ended.stderr[-_STDERR_CHARS_MAX:].strip()
            self.ready.set_exception(FunctionCrashedError(f"status {ended.status}: {text}"))
            self.ready.exception()
        for call in list(self.calls.values()):
            self._fail(call, error)
        self._requests.close()
        self._meter.close()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._spawned.channel.close()
        if not self.ended.done():
            self.ended.set_result(None)
        self._changed()


def _broken() -> FunctionError:
    return FunctionExitedError("the function broke the process it runs in")
