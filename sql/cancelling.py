"""For what works until it is cancelled, and goes on after errors."""

import asyncio


def check_cancelled() -> None:
    """Raises CancelledError where this task was told to end and something has swallowed that: an
    error on its way out, of a connection that was closed in the middle of a statement, or a
    wait_for() whose answer came in the same moment (https://github.com/python/cpython/issues/86296,
    as in the pool of psycopg on Python 3.11).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
