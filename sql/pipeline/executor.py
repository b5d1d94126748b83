"""The executor: a bounded set of connections, and callers who wait their turn for one.

psycopg's `pq` binding is used directly, because its high-level pipeline costs several times the
statement itself. https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

import asyncio

from butterbase.sql.claims import Claims
from butterbase.sql.dsn import kept_alive
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline.connecting import connect
from butterbase.sql.pipeline.connection import Connection, Frame, StaleError
from butterbase.sql.pipeline.statement import Check, Isolation, Result, Statement, refuse_nul
from butterbase.sql.pipeline.waiting import Queue, Waiter
from butterbase.sql.spool import ROOM, SpoolRoom

# `is null`, so that the claims are not sent back.
_BECOME = (
    b"select set_config('role', $1, true) is null"
    b", set_config('request.jwt.claims', $2, true) is null"
    b", set_config('transaction_read_only', $3, true) is null"
    b", set_config('search_path', 'public, extensions', true) is null"
)


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
        acquisition_timeout_s: float = 10.0,
        room: SpoolRoom = ROOM,
    ) -> None:
        """With `prepared_count_max=0` no statement is prepared, as transaction poolers need it.

        `acquisition_timeout_s` is for the wait for one of the connections, without opening it.
        `room` is where large answers go, by default the one of the process.
        """
        self._dsn = kept_alive(dsn).encode()
        self._connection_count_max = connection_count_max
        self._prepared_count_max = prepared_count_max
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting_count = 0
        self._room = room
        self._queue = Queue[Connection](count_max=waiter_count_max, timeout_s=acquisition_timeout_s)
        self._is_closed = False

    async def run_as(
        self, claims: Claims, *statements: Statement, read_only: bool = False
    ) -> list[Result]:
        """Run the statements in one transaction as the caller; answer a result for each.

        Raises what `run` raises.
        """
        become = Statement(
            _BECOME,
            (claims.role.encode(), claims.json.encode(), b"on" if read_only else b"off"),
        )
        return (await self.run(become, *statements))[1:]

    async def run(
        self,
        *statements: Statement,
        check: Check | None = None,
        is_rolled_back: bool = False,
        isolation: Isolation | None = None,
    ) -> list[Result]:
        """Run the statements in one transaction as the login role; answer a result for each.

        `check` sees the results before they are committed; what it raises undoes them and is
        raised here. `is_rolled_back` undoes them in any case, after the deferred constraints were
        checked.

        Where the server refuses to begin with a statement, as it was prepared before DDL, the
        transaction is run again with all prepared anew: what stood before that statement, and was
        undone, runs once more. A statement that fails when it runs is not run again, whatever its
        error.

        Raises DatabaseError when Postgres refuses one (nothing is kept then), and
        DatabaseUnavailableError when it cannot be reached, AcquisitionTimeoutError when all
        connections were in use for too long, SpoolFullError when an answer is too large to be kept
        (nothing is kept of its transaction then either). When the connection is lost while a
        statement runs, whether it was committed is not known: that is what the error says.
        A caller that is cancelled has its statements cancelled.
        """
        for statement in statements:
            refuse_nul(statement)
        frame = None
        if check is not None or is_rolled_back or isolation is not None:
            begin = b"begin isolation level " + isolation.encode() if isolation else b"begin"
            frame = Frame(begin, check, is_rolled_back)
        connection = self._idle.pop() if self._idle else await self._acquire()
        done = connection.send(statements, frame)
        try:
            return await done
        except asyncio.CancelledError:
            connection.cancel(done)
            raise
        except StaleError:
            # Nothing of it was kept, so it can be run again.
            return await self._run_anew(statements, frame)

    async def close(self) -> None:
        self._is_closed = True
        self._queue.close(_stopping())
        for connection in list(self._open):
            connection.close(_stopping())

    async def _run_anew(
        self, statements: tuple[Statement, ...], frame: Frame | None
    ) -> list[Result]:
        connection = await self._acquire()
        done = connection.send(statements, frame, anew=True)
        try:
            return await done
        except asyncio.CancelledError:
            connection.cancel(done)
            raise

    async def _acquire(self) -> Connection:
        waiter: Waiter[Connection] | None = None
        while True:
            if self._is_closed:
                raise _stopping()
            if self._idle:
                return self._idle.pop()
            if len(self._open) + self._connecting_count < self._connection_count_max:
                return await self._connect()
            waiter = self._queue.join() if waiter is None else self._queue.rejoin(waiter)
            try:
                connection = await waiter[1]
            except asyncio.CancelledError:
                self._pass_on(waiter)
                raise
            # Between the wake-up and now it may have been lost.
            if connection is not None and not connection.is_closed:
                return connection

    async def _connect(self) -> Connection:
        self._connecting_count += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                pgconn = await connect(self._dsn)
        except BaseException as error:
            # Whoever waits may try in its place. The count falls first.
            self._connecting_count -= 1
            self._queue.wake(None)
            if isinstance(error, TimeoutError):
                raise DatabaseUnavailableError("connecting to the database timed out") from error
            raise
        self._connecting_count -= 1
        if self._is_closed:
            pgconn.finish()
            raise _stopping()
        connection = Connection(
            pgconn,
            release=self._release,
            discard=self._discard,
            prepared_count_max=self._prepared_count_max,
            room=self._room,
        )
        self._open.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        """Take back a connection that has nothing under way."""
        if connection.is_closed:
            return
        if not self._queue.wake(connection):
            self._idle.append(connection)

    def _pass_on(self, waiter: Waiter[Connection]) -> None:
        """What came, or was to come, for a caller who left."""
        _, coming = waiter
        if coming.cancelled():
            self._queue.leave(waiter)
        elif coming.exception() is None:
            connection = coming.result()
            if connection is None or connection.is_closed:
                self._queue.wake(None)
            else:
                self._release(connection)

    def _discard(self, connection: Connection) -> None:
        """Forget a connection that was lost; whoever waits may open another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._queue.wake(None)


def _stopping() -> DatabaseUnavailableError:
    return DatabaseUnavailableError("the server is stopping")
