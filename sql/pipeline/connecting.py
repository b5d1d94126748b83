"""Opening connections and cancelling queries, without blocking the loop.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNECTSTARTPARAMS
https://www.postgresql.org/docs/current/libpq-cancel.html
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from psycopg import pq

from butterbase.sql.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGcancelConn, PGconn


async def connect(dsn: bytes) -> "PGconn":
    """A connection in pipeline mode. Raises DatabaseUnavailableError."""
    pgconn = pq.PGconn.connect_start(dsn)
    try:
        await _complete(pgconn, pgconn.connect_poll)
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    pgconn.enter_pipeline_mode()
    return pgconn


async def cancel(pgconn: "PGconn") -> None:
    """Cancel what runs on the connection. Raises DatabaseUnavailableError.

    Afterwards the server has signalled the session: a query that is sent from now on is not met,
    since a session that waits for its next query ignores the signal.
    """
    request = pgconn.cancel_conn()
    try:
        request.start()
        await _complete(request, request.poll)
    finally:
        request.finish()


async def _complete(conn: "PGconn | PGcancelConn", poll: Callable[[], int]) -> None:
    while (status := poll()) != pq.PollingStatus.OK:
        if status == pq.PollingStatus.FAILED or conn.status == pq.ConnStatus.BAD:
            raise DatabaseUnavailableError(text_of(conn.error_message))
        await _ready(conn.socket, write=status == pq.PollingStatus.WRITING)


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


def text_of(message: bytes) -> str:
    """A message of libpq or the server."""
    return message.decode("utf-8", "replace").strip()
