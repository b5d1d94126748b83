"""One call in a process, as the host sees it."""

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from butterbase.api.functions.runtime.bodies import IncomingBody, OutgoingBody
from butterbase.api.functions.runtime.errors import (
    FunctionError,
    FunctionFailedError,
    FunctionResponseTooLargeError,
)
from butterbase.api.functions.runtime.frames import FrameError
from butterbase.api.functions.runtime.logs import CallLogs
from butterbase.api.functions.runtime.model import (
    CallContext,
    CallRequest,
    FunctionVersion,
    Headers,
)

# What is said of a connection, or follows from the body.
_DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer"),
        *("upgrade", "content-length"),
    }
)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,65536}")
_HEADER_COUNT_MAX: Final = 200
_THROWN_CHARS_MAX: Final = 32 * 1024
"""Of each part of an error. guest_platform.js sends less."""


class ResponseHead(Struct, frozen=True):
    status: Annotated[int, Meta(ge=200, le=599)]
    headers: Headers


class Thrown(Struct, frozen=True):
    """An error as the process describes it."""

    name: str = "Error"
    message: str = ""
    stack: str = ""
    kind: str = "threw"

    @property
    def text(self) -> str:
        return f"{self.name}: {self.message}"


HEAD: Final = msgspec.json.Decoder(ResponseHead)
THROWN: Final = msgspec.json.Decoder(Thrown)


class Call:
    """From its frames to its outcome. Whoever opened it waits for `head`, reads `body`, and waits
    for `ended`, after which the process has nothing more to do for it."""

    def __init__(
        self,
        number: int,
        version: FunctionVersion,
        context: CallContext,
        write: Callable[[bytes], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = number
        self.version = version
        self.context = context
        self.head: asyncio.Future[ResponseHead] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.body = IncomingBody(
            number,
            write,
            bytes_max=version.limits.response_bytes_max,
            too_large=FunctionResponseTooLargeError,
        )
        self.outgoing = OutgoingBody(number, write)
        limits = version.limits
        self.logs = CallLogs(count_max=limits.log_count_max, bytes_max=limits.log_bytes_max)
        self.failure: FunctionError | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.cpu_ns = 0.0
        self.memory_bytes = 0

    def answer(self, head: ResponseHead) -> None:
        """Raises FrameError for a second one."""
        if self.head.done():
            raise FrameError("a call was answered twice")
        self.head.set_result(head)

    def fail(self, error: FunctionError) -> None:
        """The first error counts."""
        if self.failure is None:
            self.failure = error
        if not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # nobody may have waited for it
        self.body.fail(error)
        self.outgoing.close()

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.body.is_ended:
            self.fail(FunctionFailedError("the call ended before its answer did"))
        if not self.head.done():
            self.fail(FunctionFailedError("the call ended without an answer"))
        self.outgoing.close()
        if not self.ended.done():
            self.ended.set_result(None)


def parse_head(payload: bytes) -> ResponseHead:
    """An answer's head as it may be passed on: what would break the connection it goes out on is
    left out or refused. Raises FrameError."""
    try:
        head = HEAD.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"an answer's head: {error}") from error
    if len(head.headers) > _HEADER_COUNT_MAX:
        raise FrameError("too many headers")
    kept = []
    for name, value in head.headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise FrameError("a header that is none")
        if name.lower() not in _DROPPED:
            kept.append((name.lower(), value))
    return ResponseHead(head.status, tuple(kept))


def parse_thrown(payload: bytes) -> Thrown:
    """Raises FrameError."""
    try:
        thrown = THROWN.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"an error: {error}") from error
    if max(map(len, (thrown.name, thrown.message, thrown.stack))) > _THROWN_CHARS_MAX:
        raise FrameError("an error that is too long")
    return thrown


def encode_head(request: CallRequest) -> bytes:
    """As guest.js reads it."""
    context = request.context
    env = dict(context.env)
    if context.service_token is not None:
        env["BUTTERBASE_SERVICE_TOKEN"] = context.service_token
    told: dict[str, Any] = {
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "env": env,
        "context": {
            "invocation_id": context.invocation_id,
            "request_id": context.request_id,
            "trigger": context.trigger,
            "user": context.user,
            "token": context.token,
            "service_token": context.service_token,
            "attempt": context.attempt,
            "ip": context.ip,
        },
    }
    return msgspec.json.encode(told)
