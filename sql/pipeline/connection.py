"""One connection, and the one transaction that may be under way on it.

Statements up to a Sync are one implicit transaction: they commit together, or none of them does,
without a BEGIN or COMMIT of ours. A transaction that is checked, rolled back or isolated is begun
and ended by name; checked, it takes a second round trip, since its end depends on its results.
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import psycopg
from msgspec import Struct
from psycopg import pq

from butterbase.sql.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    SpoolFullError,
    is_unavailable,
)
from butterbase.sql.pipeline.connecting import cancel, text_of
from butterbase.sql.pipeline.sending import Kind, Sender
from butterbase.sql.pipeline.statement import Check, Result, Statement
from butterbase.sql.spool import Spool, SpoolRoom

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

CANCEL_TIMEOUT_S = 5.0
CANCEL_AGAIN_S = 1.0

_COMMAND_OK = int(pq.ExecStatus.COMMAND_OK)
_TUPLES_OK = int(pq.ExecStatus.TUPLES_OK)
_SINGLE_TUPLE = int(pq.ExecStatus.SINGLE_TUPLE)
_PIPELINE_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_PIPELINE_ABORTED = int(pq.ExecStatus.PIPELINE_ABORTED)
_IDLE = int(pq.TransactionStatus.IDLE)

_CANCELLED_SQLSTATE = "57014"

_QUERY, _CHUNKED, _CONTROL = Kind.QUERY, Kind.CHUNKED, Kind.CONTROL


_SPENT_SQLSTATES = frozenset({"25001", "42P05"})
"""Of a session in which a function left its default to be read-only, or a statement with a name of
ours: no transaction that wants the other would succeed there any more."""


class StaleError(DatabaseError):
    """A statement was not begun, since DDL has overtaken it after it was prepared."""


Results: TypeAlias = "asyncio.Future[list[Result]]"


class Frame(Struct, frozen=True):
    """How a transaction begins and ends, where that is not left to the protocol."""

    begin: bytes = b"begin"
    check: Check | None = None
    is_rolled_back: bool = False

    @property
    def end(self) -> tuple[bytes, ...]:
        # A deferred constraint that fails is found as it would be by a commit.
        return (
            (b"set constraints all immediate", b"rollback") if self.is_rolled_back else (b"commit",)
        )


class Connection:
    """A connection in pipeline mode; `release` and `discard` are its owner's."""

    def __init__(
        self,
        pgconn: "PGconn",
        *,
        release: "Callable[[Connection], None]",
        discard: "Callable[[Connection], None]",
        prepared_count_max: int,
        room: SpoolRoom,
    ) -> None:
        self._pgconn = pgconn
        self._release = release
        self._discard = discard
        self._room = room
        self._sender = Sender(pgconn, prepared_count_max=prepared_count_max)
        self._expected = self._sender.expected
        self._frame: Frame | None = None
        self._is_undecided = False  # its statements ran, and whether they stay is not known
        self._results: list[Result] = []
        self._first: PGresult | None = None  # of a chunked statement under way
        self._body: bytes | Spool = b""
        self._error: Exception | None = None
        self._is_stale = False  # as which the error may have come about
        self._full: SpoolFullError | None = None  # for which we cancel it ourselves
        self._is_spent = False
        self._is_paused = False
        self._done: Results | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._over = asyncio.Event()  # for whoever cancels it
        self._loop = asyncio.get_running_loop()
        self._descriptor = pgconn.socket
        self._loop.add_reader(self._descriptor, self._on_readable)

    @property
    def is_closed(self) -> bool:
        return self._descriptor < 0

    def send(
        self, statements: Sequence[Statement], frame: Frame | None = None, *, anew: bool = False
    ) -> Results:
        """Send one transaction, its statements prepared anew where that is asked for."""
        done = self._done = self._loop.create_future()
        self._frame = frame
        self._results = []
        self._error = None
        self._is_stale = False
        self._full = None
        push = self._sender.push
        try:
            self._sender.begin({statement.text for statement in statements} if anew else ())
            if frame is not None:
                push(frame.begin, (), _CONTROL)
            for statement in statements:
                kind = _CHUNKED if statement.is_chunked else _QUERY
                push(statement.text, statement.parameters, kind)
            self._expect_pieces()
            if frame is None:
                self._pgconn.pipeline_sync()
            elif frame.check is None:
                self._end(*frame.end)
            else:
                self._is_undecided = True
                self._pgconn.send_flush_request()
            self._flush()
        except psycopg.Error as error:
            self.close(DatabaseUnavailableError(str(error)))
        return done

    def cancel(self, done: Results) -> None:
        """Cancel what `send` answered with that future; nobody wants its results any more.

        The connection is released when the server has both ended it and forgotten the request.
        """
        if self._done is done:
            self._drop_results()
            self._start_cancelling()
        elif done.done() and not done.cancelled() and done.exception() is None:
            _close_bodies(done.result())

    def close(self, error: DatabaseUnavailableError) -> None:
        if not self.is_closed:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = -1
            self._pgconn.finish()
            self._drop_results()
            if self._cancelling is not None:
                self._cancelling.cancel()
            self._discard(self)
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def _start_cancelling(self) -> None:
        if self._cancelling is None:
            self._over.clear()
            self._cancelling = self._loop.create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            while self._done is not None:
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    await cancel(self._pgconn)
                self._resume()
                # A request that arrives before the query it is for is ignored.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), CANCEL_AGAIN_S)
        except (DatabaseUnavailableError, TimeoutError, psycopg.Error) as error:
            # Whether the request still arrives, and when, is not known.
            self.close(DatabaseUnavailableError(f"a query could not be cancelled: {error}"))
        self._cancelling = None
        if not self.is_closed:
            self._resume()
            self._let_go()

    def _pause(self) -> None:
        """Read nothing until the server knows that it is to stop."""
        self._is_paused = True
        self._loop.remove_reader(self._descriptor)

    def _resume(self) -> None:
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._loop.add_reader(self._descriptor, self._on_readable)

    def _end(self, *texts: bytes) -> None:
        for text in texts:
            self._sender.push(text, (), _CONTROL)
        self._pgconn.pipeline_sync()

    def _flush(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._descriptor, self._on_writable)

    def _on_writable(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._descriptor)
        except psycopg.Error as error:
            self.close(DatabaseUnavailableError(str(error)))

    def _on_readable(self) -> None:
        try:
            self._pgconn.consume_input()
            while self._pgconn.notifies() is not None:
                pass  # a function listened, but nobody here does
            self._read_results()
        except psycopg.Error as error:
            self.close(DatabaseUnavailableError(str(error)))

    def _read_results(self) -> None:
        # A statement's results end with None; two in a row say that there is nothing more.
        pgconn = self._pgconn
        was_end = False
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is not None:
                was_end = False
                if result.status == _PIPELINE_SYNC:
                    if self._on_sync():
                        return
                else:
                    self._take(result)
            elif was_end:
                if pgconn.status == pq.ConnStatus.BAD:
                    self.close(DatabaseUnavailableError(text_of(pgconn.error_message)))
                return
            else:
                was_end = True
                if self._expected:
                    self._expect_pieces()
                elif self._is_undecided:
                    self._decide()
                    return

    def _expect_pieces(self) -> None:
        """Have the results of a chunked statement come row by row; no other statement's do."""
        expected = self._expected
        if expected and expected[0].kind is _CHUNKED and self._error is None:
            self._pgconn.set_single_row_mode()

    def _take(self, result: "PGresult") -> None:
        status = result.status
        if status == _SINGLE_TUPLE:
            self._take_piece(result)
            return
        if not self._expected:  # a deferred constraint failed, or the server ends the session
            self._error = self._error or _error(result)
            return
        step = self._expected.popleft()
        if status in (_TUPLES_OK, _COMMAND_OK):
            if step.kind is _QUERY:
                self._results.append(Result(result))
            elif step.kind is _CHUNKED:
                self._results.append(Result(self._first or result, self._body))
                self._first, self._body = None, b""
            return
        self._sender.on_refused(step)
        if status != _PIPELINE_ABORTED:
            self._error = error = _error(result)
            self._is_spent = error.sqlstate in _SPENT_SQLSTATES and not _has_context(result)
            self._is_stale = self._sender.is_stale(step, result)

    def _take_piece(self, row: "PGresult") -> None:
        assert self._done is not None
        if self._error is not None or self._done.cancelled():
            return
        piece = row.get_value(0, row.nfields - 1) or b""
        if self._first is None:
            self._first, self._body = row, piece
            return
        if isinstance(self._body, bytes):
            first, self._body = self._body, Spool(self._room)
            self._keep(self._body, first)
        self._keep(self._body, piece)

    def _keep(self, body: Spool, piece: bytes) -> None:
        try:
            body.write(piece)
        except SpoolFullError as error:
            # What changed rows may be committed by now. The server says whether it was: only what
            # it did cancel is an error, and of the rest the whole body is kept.
            self._full = error
            self._pause()
            self._start_cancelling()

    def _decide(self) -> None:
        """Commit what the check accepts."""
        assert self._frame is not None
        assert self._frame.check is not None
        assert self._done is not None
        self._is_undecided = False
        if self._error is not None:
            self._pgconn.pipeline_sync()  # nothing else is heard before it
        elif self._done.cancelled():
            self._end(b"rollback")
        else:
            try:
                self._frame.check(self._results)
            except Exception as error:
                self._error = error
                self._end(b"rollback")
            else:
                self._end(*self._frame.end)
        self._flush()

    def _on_sync(self) -> bool:
        """Whether the transaction is over."""
        if self._frame is not None and self._pgconn.transaction_status != _IDLE:
            # One of its statements failed, and with it what was to end it.
            self._end(b"rollback")
            self._flush()
            return False
        self._finish()
        return True

    def _finish(self) -> None:
        done, error = self._done, self._error
        self._done = None
        if done is not None and not done.done():
            if error is None:
                done.set_result(self._results)
                self._results = []
            else:
                done.set_exception(self._refusal(error))
        self._drop_results()
        if self._cancelling is None:
            self._let_go()
        else:
            self._over.set()

    def _let_go(self) -> None:
        if self._is_spent:
            self.close(DatabaseUnavailableError("the session is of no more use"))
        else:
            self._release(self)

    def _refusal(self, error: Exception) -> Exception:
        if not isinstance(error, DatabaseError):
            return error
        if self._full is not None and error.sqlstate == _CANCELLED_SQLSTATE:
            return self._full
        if is_unavailable(error.sqlstate):
            return DatabaseUnavailableError(error.message)
        if self._is_stale:
            return StaleError(error.sqlstate, error.message, detail=error.detail, hint=error.hint)
        return error

    def _drop_results(self) -> None:
        if self._results:
            _close_bodies(self._results)
            self._results = []
        if isinstance(self._body, Spool):
            self._body.close()
        self._first, self._body = None, b""


def _close_bodies(results: list[Result]) -> None:
    for result in results:
        if isinstance(result.body, Spool):
            result.body.close()


def _has_context(result: "PGresult") -> bool:
    """Whether it is a function that failed."""
    return result.error_field(pq.DiagnosticField.CONTEXT) is not None


def _error(result: "PGresult") -> DatabaseError:
    def field(which: pq.DiagnosticField) -> str | None:
        value = result.error_field(which)
        return None if value is None else text_of(value)

    return DatabaseError(
        field(pq.DiagnosticField.SQLSTATE) or "XX000",
        field(pq.DiagnosticField.MESSAGE_PRIMARY) or text_of(result.error_message),
        detail=field(pq.DiagnosticField.MESSAGE_DETAIL),
        hint=field(pq.DiagnosticField.MESSAGE_HINT),
    )
