"""The executor: a bounded set of connections, and callers who wait their turn for one.

psycopg's `pq` binding is used directly, because its high-level pipeline costs several times the
statement itself. https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

import asyncio
from collections import deque

from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline.connecting import connect
from butterbase.sql.pipeline.connection import Connection, Frame, StaleError
from butterbase.sql.pipeline.statement import Check, Isolation, Result, Statement, refuse_nul

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
    ) -> None:
        self._dsn = dsn.encode()
        self._connection_count_max = connection_count_max
        self._waiter_count_max = waiter_count_max
        self._prepared_count_max = prepared_count_max
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting_count = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()

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
        raised here. It may be asked twice, of two tries. `is_rolled_back` undoes them in any case,
        after the deferred constraints were checked.

        Raises DatabaseError when Postgres refuses one (nothing is kept then), and
        DatabaseUnavailableError when it cannot be reached. When the connection is lost while a
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
        for connection in list(self._open):
            connection.close(DatabaseUnavailableError("the server is stopping"))

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
        while True:
            if self._idle:
                return self._idle.pop()
            if len(self._open) + self._connecting_count < self._connection_count_max:
                return await self._connect()
            if len(self._waiters) >= self._waiter_count_max:
                raise DatabaseUnavailableError("too many requests wait for a database connection")
            waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                connection = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and (given := waiter.result()):
                    self._release(given)
                raise
            if connection is not None:
                return connection

    async def _connect(self) -> Connection:
        self._connecting_count += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                pgconn = await connect(self._dsn)
        except TimeoutError as error:
            raise DatabaseUnavailableError("connecting to the database timed out") from error
        finally:
            self._connecting_count -= 1
            self._wake(None)
        connection = Connection(
            pgconn,
            release=self._release,
            discard=self._discard,
            prepared_count_max=self._prepared_count_max,
        )
        self._open.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        """Take back a connection that has nothing under way."""
        if connection.is_closed:
            return
        if not self._wake(connection):
            self._idle.append(connection)

    def _discard(self, connection: Connection) -> None:
        """Forget a connection that was lost; whoever waits may open another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake(None)

    def _wake(self, connection: Connection | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False
