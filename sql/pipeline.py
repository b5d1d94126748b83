"""The data path's executor: one transaction in one round trip, over libpq's pipeline mode.

psycopg's `pq` binding is used directly, because its high-level pipeline costs several times the
statement itself. The statements up to a Sync are one implicit transaction: they commit together,
or none of them does, without a BEGIN or COMMIT of ours.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

import asyncio
import enum
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import psycopg
from msgspec import Struct
from psycopg import pq

from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError, is_unavailable

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

Parameters: TypeAlias = Sequence[bytes | None]

# `is null`, so that the claims are not sent back.
_BECOME = (
    b"select set_config('role', $1, true) is null"
    b", set_config('request.jwt.claims', $2, true) is null"
    b", set_config('transaction_read_only', $3, true) is null"
    b", set_config('search_path', 'public, extensions', true) is null"
)

# What a statement that was prepared before DDL may fail with: its parameters keep the types that
# columns had, and a pooler or DISCARD may have dropped it.
_STALE_SQLSTATES = frozenset({"0A000", "22003", "22P02", "26000", "42804", "42883"})


class _StaleError(DatabaseError):
    """A statement prepared earlier failed as one that DDL has overtaken would."""


class _Step(enum.Enum):
    QUERY = enum.auto()
    CLOSE = enum.auto()


_QUERY, _CLOSE = _Step.QUERY, _Step.CLOSE


class Statement(Struct, frozen=True):
    """SQL text with `$1` parameters in text format; equal texts are prepared once a connection."""

    text: bytes
    parameters: Parameters = ()


class Result:
    """The rows of one statement, in Postgres's text format."""

    __slots__ = ("_result",)

    def __init__(self, result: "PGresult") -> None:
        self._result = result

    @property
    def row_count(self) -> int:
        return self._result.ntuples

    def value(self, row: int = 0, column: int = 0) -> bytes | None:
        return self._result.get_value(row, column)

    def rows(self) -> list[tuple[bytes | None, ...]]:
        result = self._result
        columns = range(result.nfields)
        return [tuple(result.get_value(r, c) for c in columns) for r in range(result.ntuples)]


class Executor:
    """A bounded set of connections to one database as one role, opened as they are needed."""

    def __init__(
        self,
        dsn: str,
        *,
        connection_count_max: int = 10,
        waiter_count_max: int = 1000,
        prepared_count_max: int = 250,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self._dsn = dsn.encode()
        self._connection_count_max = connection_count_max
        self._waiter_count_max = waiter_count_max
        self._prepared_count_max = prepared_count_max
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting_count = 0
        self._waiters: deque[asyncio.Future[_Connection | None]] = deque()

    async def run_as(
        self, claims: Claims, *statements: Statement, read_only: bool = False
    ) -> list[Result]:
        """Run the statements in one transaction as the caller; answer a result for each.

        Raises DatabaseError when Postgres refuses one (nothing is kept then), and
        DatabaseUnavailableError when it cannot be reached. When the connection is lost while a
        statement runs, whether it was committed is not known: that is what the error says.
        """
        become = Statement(
            _BECOME,
            (claims.role.encode(), claims.json.encode(), b"on" if read_only else b"off"),
        )
        return (await self.run(become, *statements))[1:]

    async def run(self, *statements: Statement) -> list[Result]:
        """Run the statements in one transaction as the login role."""
        for statement in statements:
            _refuse_nul(statement)
        try:
            return await (await self._acquire()).send(statements)
        except _StaleError:
            # Nothing of it was kept, so it can be run again.
            return await (await self._acquire()).send(statements, anew=True)

    async def close(self) -> None:
        for connection in list(self._open):
            connection.close(DatabaseUnavailableError("the server is stopping"))

    async def _acquire(self) -> "_Connection":
        while True:
            if self._idle:
                return self._idle.pop()
            if len(self._open) + self._connecting_count < self._connection_count_max:
                return await self._connect()
            if len(self._waiters) >= self._waiter_count_max:
                raise DatabaseUnavailableError("too many requests wait for a database connection")
            waiter: asyncio.Future[_Connection | None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                connection = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and (given := waiter.result()):
                    self.release(given)
                raise
            if connection is not None:
                return connection

    async def _connect(self) -> "_Connection":
        self._connecting_count += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                pgconn = await _connect(self._dsn)
        except TimeoutError as error:
            raise DatabaseUnavailableError("connecting to the database timed out") from error
        finally:
            self._connecting_count -= 1
            self._wake(None)
        connection = _Connection(pgconn, self, self._prepared_count_max)
        self._open.add(connection)
        return connection

    def release(self, connection: "_Connection") -> None:
        """Take back a connection that has nothing under way."""
        if connection.is_closed:
            return
        if not self._wake(connection):
            self._idle.append(connection)

    def discard(self, connection: "_Connection") -> None:
        """Forget a connection that was lost; whoever waits may open another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake(None)

    def _wake(self, connection: "_Connection | None") -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False


def _refuse_nul(statement: Statement) -> None:
    """libpq takes text up to the first NUL; Postgres text cannot hold one anyway."""
    if b"\0" in statement.text or any(p is not None and b"\0" in p for p in statement.parameters):
        raise DatabaseError("22021", "invalid byte sequence for encoding: 0x00")


async def _connect(dsn: bytes) -> "PGconn":
    """Open a connection without blocking the loop. Raises DatabaseUnavailableError."""
    pgconn = pq.PGconn.connect_start(dsn)
    polling = pq.PollingStatus
    try:
        while (status := pgconn.connect_poll()) != polling.OK:
            if status == polling.FAILED or pgconn.status == pq.ConnStatus.BAD:
                raise DatabaseUnavailableError(_text(pgconn.error_message))
            await _ready(pgconn.socket, write=status == polling.WRITING)
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    pgconn.enter_pipeline_mode()
    return pgconn


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


class _Connection:
    """One connection with at most one transaction under way."""

    def __init__(self, pgconn: "PGconn", executor: Executor, prepared_count_max: int) -> None:
        self._pgconn = pgconn
        self._executor = executor
        self._prepared_count_max = prepared_count_max
        self._prepared: OrderedDict[bytes, bytes] = OrderedDict()
        self._prepared_ordinal = 0
        # What each result to come answers: a text being prepared, `_QUERY` or `_CLOSE`.
        self._expected: deque[bytes | _Step] = deque()
        self._results: list[Result] = []
        self._error: DatabaseError | None = None
        self._has_reused = False
        self._done: asyncio.Future[list[Result]] | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = pgconn.socket
        self._loop.add_reader(self._descriptor, self._on_readable)

    @property
    def is_closed(self) -> bool:
        return self._descriptor < 0

    def send(
        self, statements: Sequence[Statement], *, anew: bool = False
    ) -> "asyncio.Future[list[Result]]":
        """Send one transaction, its statements prepared anew where that is asked for.

        A caller that is cancelled leaves it running to its end.
        """
        done = self._done = self._loop.create_future()
        self._results = []
        self._error = None
        self._has_reused = False
        try:
            if anew:
                for text in {statement.text for statement in statements} & self._prepared.keys():
                    self._forget(text)
            for statement in statements:
                name = self._prepare(statement.text)
                self._pgconn.send_query_prepared(name, statement.parameters)
                self._expected.append(_QUERY)
            self._pgconn.pipeline_sync()
            self._flush()
        except psycopg.Error as error:
            self.close(DatabaseUnavailableError(str(error)))
        return done

    def close(self, error: DatabaseUnavailableError) -> None:
        if self.is_closed:
            return
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._descriptor = -1
        self._pgconn.finish()
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
        self._executor.discard(self)

    def _prepare(self, text: bytes) -> bytes:
        name = self._prepared.get(text)
        if name is not None:
            self._prepared.move_to_end(text)
            self._has_reused = True
            return name
        if len(self._prepared) >= self._prepared_count_max:
            self._forget(next(iter(self._prepared)))
        self._prepared_ordinal += 1
        name = self._prepared[text] = b"s%d" % self._prepared_ordinal
        self._pgconn.send_prepare(name, text)
        self._expected.append(text)
        return name

    def _forget(self, text: bytes) -> None:
        self._pgconn.send_close_prepared(self._prepared.pop(text))
        self._expected.append(_CLOSE)

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
            self._read_results()
        except psycopg.Error as error:
            self.close(DatabaseUnavailableError(str(error)))

    def _read_results(self) -> None:
        # A statement's results end with None; two in a row say that there is nothing more.
        was_end = False
        while not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                if was_end:
                    if self._pgconn.status == pq.ConnStatus.BAD:
                        self.close(DatabaseUnavailableError(_text(self._pgconn.error_message)))
                    return
                was_end = True
                continue
            was_end = False
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._finish()
                return
            self._take(result)

    def _take(self, result: "PGresult") -> None:
        if not self._expected:  # the server ends the session of its own accord
            self._error = self._error or _error(result)
            return
        step = self._expected.popleft()
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            if step is _QUERY:
                self._results.append(Result(result))
            return
        if isinstance(step, bytes):
            self._prepared.pop(step, None)
        if result.status != pq.ExecStatus.PIPELINE_ABORTED:
            self._error = _error(result)

    def _finish(self) -> None:
        done, error = self._done, self._error
        self._done = None
        if done is not None and not done.done():
            if error is None:
                done.set_result(self._results)
            elif is_unavailable(error.sqlstate):
                done.set_exception(DatabaseUnavailableError(error.message))
            elif self._has_reused and error.sqlstate in _STALE_SQLSTATES:
                done.set_exception(
                    _StaleError(error.sqlstate, error.message, detail=error.detail, hint=error.hint)
                )
            else:
                done.set_exception(error)
        self._executor.release(self)


def _error(result: "PGresult") -> DatabaseError:
    def field(which: pq.DiagnosticField) -> str | None:
        value = result.error_field(which)
        return None if value is None else _text(value)

    return DatabaseError(
        field(pq.DiagnosticField.SQLSTATE) or "XX000",
        field(pq.DiagnosticField.MESSAGE_PRIMARY) or _text(result.error_message),
        detail=field(pq.DiagnosticField.MESSAGE_DETAIL),
        hint=field(pq.DiagnosticField.MESSAGE_HINT),
    )


def _text(message: bytes) -> str:
    return message.decode("utf-8", "replace").strip()
