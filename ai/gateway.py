"""One call to a model, from its request to its event.

A call is a task of its own. It ends in one `ai.call` event, whatever becomes of the client or the
provider, and it is the client's leaving that cancels it. The event is written at the end: a worker
that is killed, and a control database that is away for longer than the write is tried, lose the
events of the calls that run.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Literal, TypeAlias
from uuid import UUID, uuid4

import httpx
import msgspec
import psycopg
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from butterbase.ai.config import AiConfigs
from butterbase.ai.errors import (
    AccountingError,
    AiInternalError,
    ClientLeftError,
    UpstreamInvalidError,
    UpstreamTimeoutError,
)
from butterbase.ai.problems import render_error
from butterbase.ai.providers import (
    DONE,
    Endpoint,
    StreamReader,
    Usage,
    allowed_listing,
    choose_model,
    decode_request,
    is_json_object,
    read_usage,
    render_request,
)
from butterbase.ai.settings import AiSettings
from butterbase.ai.sse import encode_event
from butterbase.ai.upstream import Upstream, is_event_stream, read_whole
from butterbase.projections.usage import AI_CALL, AiCall
from butterbase.sql.errors import ButterbaseError

ReadBody: TypeAlias = Callable[[], Awaitable[bytes]]
ClientLeft: TypeAlias = Callable[[], Awaitable[None]]
Status: TypeAlias = Literal["ok", "failed", "cancelled", "timeout"]

_PART_COUNT_MAX = 64
"""Parts of a stream that wait for a slow client; the provider is not read on past them."""

_DRAIN_TIMEOUT_S = 0.05
_WRITE_TIMEOUT_S = 5.0

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream; charset=utf-8"

_log = logging.getLogger(__name__)


class Caller(Struct, frozen=True):
    app_id: str
    role: str
    user_id: UUID | None
    """None for the app's own keys."""
    request_id: str


class Answer(Struct, frozen=True):
    status: int
    content_type: str
    body: "bytes | Parts"


class Call:
    """The state of one call."""

    def __init__(self, caller: Caller, endpoint: Endpoint) -> None:
        self.caller = caller
        self.endpoint = endpoint
        self.began_s = time.monotonic()
        self.provider = self.model = ""
        self.is_streamed = False
        self.usage: Usage | None = None
        self.first_token_s: float | None = None
        self.watcher: asyncio.Task[None] | None = None
        """Waits for the client to leave."""
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue(_PART_COUNT_MAX)

    def event(self, status: Status, error: ButterbaseError | None) -> AiCall:
        usage, first_s = self.usage or Usage(), self.first_token_s
        if self.answer.done() and not self.answer.cancelled():
            http_status: int | None = 200
        elif error is not None:
            http_status = render_error(error)[0]
        else:
            http_status = 200 if status == "ok" else None
        return AiCall(
            endpoint=self.endpoint,
            provider=self.provider,
            model=self.model,
            stream=self.is_streamed,
            status=status,
            http_status=http_status,
            error_code=None if error is None else error.code,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source="missing" if self.usage is None else "reported",
            latency_ms=_ms(time.monotonic() - self.began_s),
            first_token_ms=None if first_s is None else _ms(first_s - self.began_s),
        )

    async def pass_on(self, part: bytes) -> None:
        """Give the client the next bytes of a stream; the first ones start its answer."""
        if not self.answer.done():
            task = asyncio.current_task()
            assert task is not None
            self.answer.set_result(Answer(200, _EVENT_STREAM, Parts(self, task)))
        await self.parts.put(part)

    async def end(self, answer: Answer | None, error: ButterbaseError | None) -> None:
        """Give the client the whole answer, or the end of its stream, or the error in its place."""
        if not self.answer.done():
            if error is not None:
                self.answer.set_exception(error)
                return
            if answer is not None:
                self.answer.set_result(answer)
                return
        # A stream: only a whole answer ends with [DONE].
        await self.pass_on(DONE if error is None else encode_event(render_error(error)[1]))
        await self.parts.put(None)

    def abandon(self) -> None:
        """End what the client is given, here and now: it has gone, or the server stops."""
        if not self.answer.done():
            self.answer.set_exception(ClientLeftError())
        while not self.parts.empty():
            self.parts.get_nowait()
        self.parts.put_nowait(None)


class Parts:
    """The bytes of a streamed answer. Closing it before its end cancels the call."""

    def __init__(self, call: Call, task: asyncio.Task[None]) -> None:
        self._call = call
        self._task = task

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._call.parts.get()
        if part is None:
            raise StopAsyncIteration
        return part

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class Gateway:
    """Calls to the providers of all apps, for one worker."""

    def __init__(
        self,
        settings: AiSettings,
        configs: AiConfigs,
        pool: AsyncConnectionPool[AsyncConnection],
    ) -> None:
        """`pool` is the control database's, as butterbase_service."""
        self.settings = settings
        self._configs = configs
        self._pool = pool
        self._upstream = Upstream(settings)
        self._calls: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Task[bool]] = set()

    @property
    def call_count(self) -> int:
        """Calls that run."""
        return len(self._calls)

    async def close(self) -> None:
        """Cancel the calls that run, wait until each is recorded, close the connections."""
        for call in self._calls:
            call.cancel()
        if waiting := [*self._calls, *self._writes]:
            await asyncio.wait(waiting)
        # A call that was cancelled has just begun to write.
        if self._writes:
            await asyncio.wait(list(self._writes))
        await self._upstream.close()

    async def call(
        self, caller: Caller, endpoint: Endpoint, read_body: ReadBody, client_left: ClientLeft
    ) -> Answer:
        """The provider's answer, or the start of its stream. Raises AiError.

        `client_left` is awaited once the body is read, and returns when the client has gone.
        """
        call = Call(caller, endpoint)
        task = asyncio.create_task(self._run(call, read_body, client_left))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await call.answer
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise

    async def list_models(self, app_id: str) -> bytes:
        """The provider's list of models, those that the app allows. It costs no event.

        Raises AiError.
        """
        route = await self._configs.route(app_id)
        size_max = self.settings.ai_response_bytes_max
        try:
            async with (
                asyncio.timeout(self.settings.ai_first_token_timeout_s),
                self._upstream.ask(route, "models") as response,
            ):
                return allowed_listing(await read_whole(response, bytes_max=size_max), route)
        except TimeoutError as error:
            raise UpstreamTimeoutError from error

    async def _run(self, call: Call, read_body: ReadBody, client_left: ClientLeft) -> None:
        try:
            answer, error = await self._perform_and_record(call, read_body, client_left)
            await call.end(answer, error)
        except asyncio.CancelledError:
            call.abandon()
            raise
        finally:
            if call.watcher is not None:
                call.watcher.cancel()

    async def _perform_and_record(
        self, call: Call, read_body: ReadBody, client_left: ClientLeft
    ) -> tuple[Answer | None, ButterbaseError | None]:
        status: Status = "cancelled"
        answer: Answer | None = None
        error: ButterbaseError | None = None
        try:
            body = await read_body()
            self._watch(call, client_left)
            answer = await self._perform(call, body)
            status = "ok"
        except UpstreamTimeoutError as timeout:
            status, error = "timeout", timeout
        except ClientLeftError as leave:
            error = leave
        except ButterbaseError as failure:
            status, error = "failed", failure
        except Exception:
            _log.exception("request %s: the call to a model failed", call.caller.request_id)
            status, error = "failed", AiInternalError()
        finally:
            # Shielded: a client that leaves now does not take the event with it.
            write = asyncio.create_task(self._write(call.caller, call.event(status, error)))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
            is_recorded = await asyncio.shield(write)
        if not is_recorded:
            # Nobody gets an answer that no event tells of. Of a stream the client has the text
            # already: it gets this error in place of [DONE], and the process's log has the event.
            error = AccountingError(hint="try again when the control database is back")
        return answer, error

    def _watch(self, call: Call, client_left: ClientLeft) -> None:
        """Cancel the task that runs now when the client leaves."""
        task = asyncio.current_task()
        assert task is not None

        async def watch() -> None:
            await client_left()
            task.cancel()

        call.watcher = asyncio.create_task(watch())

    async def _perform(self, call: Call, body: bytes) -> Answer | None:
        """The whole answer; None when it was streamed and only its end is still to send."""
        request = decode_request(call.endpoint, body)
        call.is_streamed = request.is_streamed
        route = await self._configs.route(call.caller.app_id)
        call.provider = route.provider
        call.model = choose_model(request, route)
        rendered = render_request(request, call.model, route)
        now_s = asyncio.get_running_loop().time()
        total = now_s + self.settings.ai_total_timeout_s
        first = now_s + self.settings.ai_first_token_timeout_s if call.is_streamed else total
        try:
            async with (
                asyncio.timeout_at(min(first, total)) as timer,
                self._upstream.ask(route, call.endpoint, rendered) as response,
            ):
                if call.is_streamed and is_event_stream(response):
                    reader = StreamReader(wants_usage=request.wants_usage)
                    await _relay(call, reader, response, lambda: timer.reschedule(total))
                    return None
                timer.reschedule(total)
                answer = await read_whole(response, bytes_max=self.settings.ai_response_bytes_max)
        except TimeoutError as error:
            raise UpstreamTimeoutError from error
        if not is_json_object(answer):
            raise UpstreamInvalidError(hint="check the base URL: it usually ends with /v1")
        call.usage = read_usage(answer)
        return Answer(response.status_code, _JSON, answer)

    async def _write(self, caller: Caller, call: AiCall) -> bool:
        """Write the event; whether it is written."""
        event = {
            "app_id": caller.app_id,
            "type": AI_CALL,
            "user_id": caller.user_id,
            "role": caller.role,
            "request_id": caller.request_id,
            "call_id": uuid4(),
            "data": msgspec.json.encode(call).decode(),
        }
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                # Every connection of the pool may be a dead one; each is met once.
                for _ in range(self._pool.max_size):
                    try:
                        await self._insert(event)
                    except psycopg.OperationalError as error:
                        _log.warning("request %s: writing again: %s", caller.request_id, error)
                    else:
                        return True
                await self._insert(event)
        except (psycopg.Error, TimeoutError) as error:
            _log.error("not recorded (%s: %s): %s", type(error).__name__, error, event)
            return False
        return True

    async def _insert(self, event: Mapping[str, object]) -> None:
        async with self._pool.connection(_WRITE_TIMEOUT_S) as conn:
            await conn.execute(_INSERT_EVENT, event)


# Whether an insert whose connection was lost is there is not known: the next one may find it.
_INSERT_EVENT = """
insert into butterbase.events (app_id, type, user_id, role, request_id, call_id, data)
values (%(app_id)s, %(type)s, %(user_id)s, %(role)s, %(request_id)s, %(call_id)s, %(data)s::jsonb)
on conflict (call_id) do nothing
"""


async def _relay(
    call: Call, reader: StreamReader, response: httpx.Response, first_token: Callable[[], None]
) -> None:
    """Pass a stream on up to its end, which is left to the caller. Raises UpstreamError."""
    chunks = response.aiter_bytes()
    async for chunk in chunks:
        part = reader.feed(chunk)
        call.usage = reader.usage
        if reader.has_begun and call.first_token_s is None:
            call.first_token_s = time.monotonic()
            first_token()
        if part:
            await call.pass_on(part)
        if reader.error is not None:
            raise reader.error
        if reader.is_done:
            await _drain(chunks)
            return
    if part := reader.close():
        await call.pass_on(part)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows [DONE], which is the end of the body: the connection can be used again."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
