"""Calls of functions: the way from a request to its answer, and to what is known of it then."""

import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from butterbase.api.functions.runtime.asking import Services
from butterbase.api.functions.runtime.call import Call
from butterbase.api.functions.runtime.egress import Address, ApiUrls, Egress
from butterbase.api.functions.runtime.errors import (
    STATUS,
    FunctionClientLeftError,
    FunctionCrashedError,
    FunctionError,
    FunctionFailedError,
    FunctionLoadError,
    FunctionLoopError,
    FunctionMethodError,
    FunctionRequestTooLargeError,
    JailError,
)
from butterbase.api.functions.runtime.frames import BUNDLE_BYTES_MAX, WINDOW_BYTES
from butterbase.api.functions.runtime.guest import Guest
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.jail.spawner import Spawner, find_deno
from butterbase.api.functions.runtime.jail.zygote import Ready
from butterbase.api.functions.runtime.model import (
    DEPTH_HEADER,
    CallRequest,
    Completed,
    Failure,
    FunctionVersion,
    Headers,
    Outcome,
)
from butterbase.api.functions.runtime.pool import Pool, Users
from butterbase.api.functions.runtime.seams import Operations, Recorder
from butterbase.api.functions.runtime.surroundings import Surroundings
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.sql.errors import SettingError, nearest

logger = logging.getLogger(__name__)

Body: TypeAlias = bytes | AsyncIterator[bytes]
Ended: TypeAlias = Callable[[Outcome], None]

DEPTH_MAX: Final = 8
INVOKE_BYTES_MAX: Final = 256 * 1024
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BODILESS: Final = frozenset({"GET", "HEAD"})


class RuntimeStatus(Struct, frozen=True):
    ready_count: int
    process_count: int
    waiting_count: int
    call_count: int
    boot_count: int
    has_landlock: bool
    has_seccomp: bool
    has_own_users: bool


class Answer:
    """From its head on. Whoever has it reads it to its end, or closes it."""

    def __init__(self, guest: Guest, call: Call) -> None:
        self._guest = guest
        self._call = call
        head = call.head.result()
        self.status = head.status
        self.headers: Headers = head.headers

    async def read(self) -> bytes:
        """The next part; empty at the end. Raises FunctionError when it does not come to one."""
        return await self._call.body.read()

    def take_whole(self) -> bytes | None:
        """All of the body, where it has come already."""
        body = self._call.body
        return body.take_available() if body.is_ended and body.error is None else None

    def close(self) -> None:
        """The function is told when its answer is not read to the end."""
        if not self._call.body.is_ended:
            self._guest.cancel(self._call)


class Runtime:
    """The processes of this machine that run functions."""

    def __init__(
        self,
        settings: FunctionsSettings,
        *,
        recorder: Recorder,
        operations: Operations,
        api_urls: ApiUrls,
        refused: Collection[Address] = (),
    ) -> None:
        """`refused` are addresses that no function may reach, beside private ones."""
        self._settings = settings
        self._recorder = recorder
        self._egress = Egress(settings, api_urls, refused=refused)
        self._spawner = Spawner(find_deno(settings.functions_deno))
        self._around = Surroundings(
            self._spawner,
            Services(self._egress, operations, settings.functions_egress_bytes),
            recorder,
            api_urls.public,
            settings.functions_memory_mb_max,
        )
        self._users = parse_users(settings)
        self._pool = Pool(settings, self._around, self._users)
        self._jail: Ready | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Runtime":
        """Raises JailError."""
        self._jail = await self._spawner.start()
        if sys.platform == "linux" and not self._jail.has_seccomp:
            self._spawner.close()
            raise JailError(f"there is no jail for {os.uname().machine}")
        _warn(self._jail, self._users)
        self._pool.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()
        self._spawner.close()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._egress.close()

    async def wait_lost(self) -> None:
        """Until the processes are gone by no doing of ours. Raises JailError."""
        assert self._spawner.ended is not None
        await asyncio.shield(self._spawner.ended)
        raise JailError("the process that starts functions' processes ended")

    async def call(
        self, version: FunctionVersion, request: CallRequest, body: Body = b""
    ) -> Answer:
        """The answer as soon as its head is there. Raises FunctionError.

        However it ends, the recorder is told of the outcome.
        """
        return await self._call(version, request, body, self._recorder.ended)

    async def invoke(
        self,
        version: FunctionVersion,
        request: CallRequest,
        body: Body = b"",
        *,
        bytes_max: int = INVOKE_BYTES_MAX,
    ) -> Completed:
        """A whole answer, after `waitUntil`; of a longer one than `bytes_max` its beginning.

        What fails is in the outcome.
        """
        known: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def ended(outcome: Outcome) -> None:
            self._recorder.ended(outcome)
            if not known.done():  # nobody may wait for it any more
                known.set_result(outcome)

        try:
            answer = await self._call(version, request, body, ended)
        except FunctionError as error:
            return Completed(status_of(error), (), b"", await known)
        try:
            whole = await _read_up_to(answer, bytes_max)
        except BaseException:
            answer.close()
            raise
        return Completed(answer.status, answer.headers, whole, await known)

    def retire(self, app_id: str, name: str | None = None, *, keep: str | None = None) -> None:
        """End the processes of a function, or of an app, as they become idle, but for one
        revision's."""
        for guest in self._pool.guests_of(app_id, name):
            if guest.version is not None and guest.version.revision != keep:
                guest.retire()

    def status(self) -> RuntimeStatus:
        pool = self._pool
        return RuntimeStatus(
            pool.ready_count,
            pool.process_count,
            pool.waiting_count,
            pool.call_count,
            pool.boot_count,
            bool(self._jail and self._jail.has_landlock),
            bool(self._jail and self._jail.has_seccomp),
            self._users.are_own,
        )

    async def _call(
        self, version: FunctionVersion, request: CallRequest, body: Body, ended: Ended
    ) -> Answer:
        started = _Started(time.time(), time.monotonic())
        try:
            request = _admit(version, request, body)
            guest, is_cold = await self._pool.acquire(version)
        except FunctionError as error:
            ended(_outcome(version, request, started, error))
            raise
        except asyncio.CancelledError:
            ended(_outcome(version, request, started, FunctionClientLeftError()))
            raise
        if request.method in _BODILESS:
            body = b""
        whole = body if isinstance(body, bytes) and len(body) <= WINDOW_BYTES else None
        call = guest.open(request, whole)
        call.ended.add_done_callback(
            lambda _: ended(_outcome(version, request, started, call.failure, call, is_cold))
        )
        if whole is None:
            self._keep(self._send(guest, call, body))
        try:
            await asyncio.shield(call.head)
        except asyncio.CancelledError:
            call.failure = call.failure or FunctionClientLeftError()
            guest.cancel(call)
            raise
        return Answer(guest, call)

    async def _send(self, guest: Guest, call: Call, body: Body) -> None:
        """The body of a request, as far as there is somebody to read it."""
        bytes_max, size = call.version.limits.request_bytes_max, 0
        try:
            async for part in _parts_of(body):
                size += len(part)
                if size > bytes_max:
                    guest.abandon(call, FunctionRequestTooLargeError())
                    return
                if not await call.outgoing.write(part):
                    return
            call.outgoing.end()
        except FunctionClientLeftError as error:
            call.failure = call.failure or error
            guest.cancel(call)
        except Exception:
            logger.exception("the body of a call could not be read")
            guest.abandon(call, FunctionCrashedError())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


class _Started(Struct, frozen=True):
    at: float
    monotonic_s: float


def status_of(error: FunctionError) -> int:
    return nearest(STATUS, type(error))


def parse_users(settings: FunctionsSettings) -> Users:
    """Raises SettingError."""
    first, _, last = settings.functions_uids.partition("-")
    try:
        ids = range(int(first), int(last or first) + 1)
    except ValueError:
        ids = range(0)
    if not ids or ids[0] < 1 or ids[-1] >= 2**32 - 1:
        raise SettingError(f"functions_uids is FIRST-LAST, not {settings.functions_uids!r}")
    return Users(ids if os.geteuid() == 0 and sys.platform == "linux" else None)


def _warn(jail: Ready, users: Users) -> None:
    if sys.platform != "linux":
        logger.warning("functions have no jail but Deno's permissions here: for development only")
        return
    if not jail.has_landlock:
        logger.warning("this kernel has no Landlock: files are closed to functions by Deno alone")
    if not users.are_own:
        logger.warning("functions run as this user, not as one each: start this process as root")


def _admit(version: FunctionVersion, request: CallRequest, body: Body) -> CallRequest:
    """The request as it goes to the function. Raises FunctionError."""
    if request.method not in _METHODS:
        raise FunctionMethodError
    if len(version.bundle) > BUNDLE_BYTES_MAX:
        raise FunctionLoadError("the function's bundle is too large")
    AllowList.parse(version.permissions.net)
    length, depth, headers = 0, 0, []
    for name, value in request.headers:
        lower = name.lower()
        if lower == DEPTH_HEADER:
            depth = _whole(value, DEPTH_MAX + 1)
            continue
        if lower == "content-length":
            length = _whole(value, version.limits.request_bytes_max + 1)
        headers.append((name, value))
    if isinstance(body, bytes):
        length = len(body)
    if length > version.limits.request_bytes_max:
        raise FunctionRequestTooLargeError
    depth = max(depth, request.context.depth)
    if depth > DEPTH_MAX:
        raise FunctionLoopError(hint=f"functions may call each other {DEPTH_MAX} deep")
    return replace(request, headers=tuple(headers), context=replace(request.context, depth=depth))


def _whole(text: str, most: int) -> int:
    """The number that the text is, up to so much; that much for what is none."""
    return min(int(text), most) if re.fullmatch(r"[0-9]{1,15}", text) else most


def _outcome(
    version: FunctionVersion,
    request: CallRequest,
    started: _Started,
    error: FunctionError | None,
    call: Call | None = None,
    is_cold: bool = False,
) -> Outcome:
    context = request.context
    has_answered = call is not None and call.head.done() and call.head.exception() is None
    status = 500
    if has_answered:
        assert call is not None
        status = call.head.result().status
    elif error is not None:
        status = status_of(error)
    return Outcome(
        version.app_id,
        version.name,
        version.version_id,
        version.revision,
        context.invocation_id,
        context.request_id,
        context.trigger,
        context.attempt,
        status=status,
        started_at=started.at,
        duration_ms=(time.monotonic() - started.monotonic_s) * 1000,
        cpu_ms=call.cpu_ns / 1e6 if call else 0.0,
        memory_bytes=call.memory_bytes if call else 0,
        is_cold=is_cold,
        logs=tuple(call.logs.lines) if call else (),
        failure=None if error is None else _failure(error),
        is_retryable=error is not None and error.is_retryable,
    )


def _failure(error: FunctionError) -> Failure:
    thrown = stack = None
    if isinstance(error, FunctionFailedError):
        thrown, stack = error.thrown, error.stack
    return Failure(error.code, thrown or error.message, stack)


async def _read_up_to(answer: Answer, bytes_max: int) -> bytes:
    parts, size = [], 0
    try:
        while part := await answer.read():
            parts.append(part[: max(0, bytes_max - size)])
            size += len(part)
    except FunctionError:
        logger.debug("the answer of a function ended early")  # its outcome says why
    return b"".join(parts)


async def _parts_of(body: Body) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    async for part in body:
        yield part
