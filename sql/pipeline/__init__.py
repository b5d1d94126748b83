"""The data path's executor: one transaction in one round trip, over libpq's pipeline mode.

executor.py hands out connections, connection.py runs one transaction on one, statement.py is what
goes in and comes out, connecting.py opens and cancels without blocking the loop.
"""

from butterbase.sql.pipeline.executor import Executor
from butterbase.sql.pipeline.statement import (
    PIECE_BYTES,
    Check,
    Isolation,
    Result,
    Statement,
    Value,
    bytea,
    in_pieces,
)

__all__ = [
    "PIECE_BYTES",
    "Check",
    "Executor",
    "Isolation",
    "Result",
    "Statement",
    "Value",
    "bytea",
    "in_pieces",
]
