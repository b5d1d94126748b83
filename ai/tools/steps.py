"""One call of a tool, from the model's arguments to its result, and the event that tells of it.

The model is told what went wrong, as a user of the app's REST API would be, and may try again. The
event has no arguments and no rows.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Literal, TypeAlias
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from butterbase.ai.calls.call import Call, Caller
from butterbase.ai.telemetry.protocols import ToolTrace
from butterbase.ai.tools.errors import ToolCallError, ToolRefusedError, ToolTimeoutError
from butterbase.ai.tools.offers import Offer, Work
from butterbase.ai.tools.ports import Backend, BackendAnswer, DataRequest
from butterbase.ai.tools.results import Output, tell_error
from butterbase.ai.tools.turns import Result
from butterbase.ai.wire.form import ToolCall
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("ai_tools")

WRITE_TIMEOUT_S = 5.0
RETRY_S = 0.1
READ_BYTES_MAX = 1024**2
"""Of an answer; of more than the model may see, as many rows are told as have room."""

_NAME_LENGTH_MAX = 64
_NUL = b"\\u0000"

StepStatus: TypeAlias = Literal["ok", "failed", "timeout", "cancelled"]

_log = logging.getLogger(__name__)


class ToolStep(Struct, frozen=True):
    """The data of an `ai.tool` event: how one call of a tool ended."""

    tool: str
    """As the model has called it."""
    kind: str
    """`table`, `rpc` or `function`; empty for a tool that is not offered."""
    target: str
    operation: str
    status: StepStatus
    error_code: str | None
    http_status: int | None
    """Of the REST API or the function."""
    row_count: int | None
    output_bytes: int
    latency_ms: int
    step: int
    """Of the request: which of its calls to a model has called the tool."""
    ai_call_id: UUID
    """Of that call."""


class Asker(Struct, frozen=True):
    """For whom tools are run."""

    caller: Caller
    headers: Mapping[bytes, bytes]
    """The request's own; they carry the key and the token."""


class _Run:
    """A call under way."""

    def __init__(self) -> None:
        self.operation = ""
        self.http_status: int | None = None
        self.output = Output("")


class Steps:
    """Runs calls of tools, for one worker."""

    def __init__(self, backend: Backend, control: Executor) -> None:
        """`control` is the control database's, as butterbase_service."""
        self._backend = backend
        self._control = control
        self._writes: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until each event is written."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def run(
        self,
        asker: Asker,
        call: ToolCall,
        offer: Offer | None,
        *,
        step: int,
        ai_call: Call,
        deadline_s: float,
        is_too_many: bool = False,
    ) -> Result:
        """`offer` is None for a tool that nobody has offered; a deadline is of the loop's clock."""
        began_s = asyncio.get_running_loop().time()
        run, status, error = _Run(), "ok", None
        trace = _trace(ai_call, call, offer)
        try:
            if is_too_many:
                raise ToolRefusedError("too many calls at once: make it again")
            await self._run(run, asker, call, offer, deadline_s)
        except ToolCallError as raised:
            status = "timeout" if isinstance(raised, ToolTimeoutError) else "failed"
            error, run.output = raised, Output(tell_error(raised))
        except BaseException as raised:
            is_cancelled = isinstance(raised, asyncio.CancelledError)
            status = "cancelled" if is_cancelled else "failed"
            raise
        finally:
            latency_s = asyncio.get_running_loop().time() - began_s
            grant = None if offer is None else offer.grant
            step_ = ToolStep(
                tool=call.name[:_NAME_LENGTH_MAX],
                kind="" if grant is None else grant.kind,
                target="" if grant is None else grant.target,
                operation=run.operation,
                status=status,  # type: ignore[arg-type]
                error_code=None if error is None else error.code,
                http_status=run.http_status,
                row_count=run.output.row_count,
                output_bytes=len(run.output.text.encode("utf-8", "replace")),
                latency_ms=round(latency_s * 1000),
                step=step,
                ai_call_id=ai_call.id,
            )
            _tell(trace, step_)
            self._record(asker.caller, step_)
        may_have_changed = run.operation not in {"", "select"}
        return Result(call.id, run.output.text, error is not None, may_have_changed)

    async def _run(
        self, run: _Run, asker: Asker, call: ToolCall, offer: Offer | None, deadline_s: float
    ) -> None:
        """Raises ToolCallError."""
        if offer is None or call.is_custom:
            raise ToolRefusedError(f"there is no tool {call.name[:_NAME_LENGTH_MAX]!r}")
        work = offer.plan(call.arguments)
        run.operation = work.operation
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(deadline_s, now_s + offer.grant.wait_s)):
                answer = await self._ask(asker, work)
        except TimeoutError as error:
            raise ToolTimeoutError(f"it did not answer within {offer.grant.wait_s:g} s") from error
        run.http_status = answer.status
        run.output = offer.read(work, answer)

    async def _ask(self, asker: Asker, work: Work) -> BackendAnswer:
        app_id, request = asker.caller.app_id, work.request
        if isinstance(request, DataRequest):
            return await self._backend.request(
                app_id, asker.headers, request, bytes_max=READ_BYTES_MAX
            )
        return await self._backend.invoke(
            app_id,
            asker.headers,
            request,
            request_id=asker.caller.request_id,
            bytes_max=READ_BYTES_MAX,
        )

    # Events

    def _record(self, caller: Caller, step: ToolStep) -> None:
        write = asyncio.create_task(self._write(caller, step))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write(self, caller: Caller, step: ToolStep) -> None:
        """What cannot be written is in the log alone."""
        data = msgspec.json.encode(step).replace(_NUL, b"")
        statement = Statement(
            QUERIES["add_step"],
            (
                caller.app_id.encode(),
                None if caller.user_id is None else str(caller.user_id).encode(),
                caller.role.encode(),
                caller.request_id.replace("\0", "").encode(),
                str(uuid4()).encode(),
                data,
            ),
        )
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                while not await self._is_written(statement):  # noqa: ASYNC110
                    await asyncio.sleep(RETRY_S)
        except (ButterbaseError, TimeoutError) as error:
            _log.error(
                "request %s: its step is in the log alone: %s (%s)", caller.request_id, step, error
            )

    async def _is_written(self, statement: Statement) -> bool:
        """False while the database is away. Raises DatabaseError."""
        try:
            await self._control.run(statement)
        except DatabaseUnavailableError:
            return False
        return True


# Who looks on cannot fail a tool.


def _trace(ai_call: Call, call: ToolCall, offer: Offer | None) -> ToolTrace | None:
    if ai_call.trace is None:
        return None
    kind = "" if offer is None else offer.grant.kind
    try:
        return ai_call.trace.tool(call.name[:_NAME_LENGTH_MAX], kind=kind, call_id=call.id)
    except Exception:
        _log.exception("request %s: a tool is not traced", ai_call.caller.request_id)
        return None


def _tell(trace: ToolTrace | None, step: ToolStep) -> None:
    if trace is None:
        return
    try:
        trace.end(status=step.status, error_type=step.error_code)
    except Exception:
        _log.exception("call %s: the end of a tool is not traced", step.ai_call_id)
