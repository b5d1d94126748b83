"""What goes out on a connection: prepared statements, and what the results to come will answer.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import pq

from butterbase.sql.pipeline.statement import Parameters

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

_TEXT = int(pq.Format.TEXT)
_BINARY = int(pq.Format.BINARY)

# What a statement that was prepared before DDL may fail with: its parameters keep the types that
# columns had.
_OVERTAKEN_SQLSTATES = frozenset({"0A000", "22003", "22P02", "42804", "42883"})
# A pooler or DISCARD dropped it.
_MISSING_SQLSTATE = "26000"


class Kind(enum.Enum):
    QUERY = enum.auto()
    CHUNKED = enum.auto()
    CONTROL = enum.auto()
    """A statement of ours, whose result nobody asks for."""
    PREPARE = enum.auto()
    CLOSE = enum.auto()


# Looking up a member of an enum takes longer than all else that is done with it.
_CHUNKED, _PREPARE, _CLOSE = Kind.CHUNKED, Kind.PREPARE, Kind.CLOSE


class Step(Struct, frozen=True, gc=False):
    """What one result answers."""

    kind: Kind
    subject: bytes
    """The text; of CLOSE the name."""
    is_reused: bool = False
    """Whether an earlier transaction prepared it."""

    def is_stale(self, sqlstate: str) -> bool:
        """Whether it may have failed only because it was prepared earlier."""
        if not self.is_reused:
            return False
        if sqlstate == _MISSING_SQLSTATE:
            return True
        return self.kind is not Kind.CONTROL and sqlstate in _OVERTAKEN_SQLSTATES


class Sender:
    """Statements are prepared once, and of those the ones last used are kept."""

    def __init__(self, pgconn: "PGconn", *, prepared_count_max: int) -> None:
        """With 0 nothing is prepared, so that a pooler may lend a session by transaction."""
        self._pgconn = pgconn
        self._prepared_count_max = prepared_count_max
        self._prepared: OrderedDict[bytes, bytes] = OrderedDict()
        self._prepared_ordinal = 0
        self._new: set[bytes] = set()  # texts that this transaction prepared
        self._unclosed: list[bytes] = []
        self.expected: deque[Step] = deque()

    def begin(self, anew: Collection[bytes] = ()) -> None:
        """Before each transaction; the texts of `anew` will be prepared anew."""
        if self._new:
            self._new.clear()
        if self._unclosed:
            names, self._unclosed = self._unclosed, []
            self._close(names)
        if anew:
            self._close([self._prepared.pop(text) for text in {*anew} & self._prepared.keys()])

    def push(self, text: bytes, parameters: Parameters, kind: Kind) -> None:
        if self._prepared_count_max == 0:
            self._pgconn.send_query_params(
                text, parameters, result_format=_BINARY if kind is _CHUNKED else _TEXT
            )
            self.expected.append(Step(kind, text))
            return
        name = self._prepared.get(text)
        if name is None:
            name = self._prepare(text)
        else:
            self._prepared.move_to_end(text)
        if kind is _CHUNKED:
            self._pgconn.send_query_prepared(name, parameters, result_format=_BINARY)
        else:
            self._pgconn.send_query_prepared(name, parameters)
        self.expected.append(Step(kind, text, text not in self._new))

    def roll_back(self) -> None:
        """Not prepared: it must work also where all that was has been dropped."""
        self._pgconn.send_query_params(b"rollback", None)
        self.expected.append(Step(Kind.CONTROL, b"rollback"))
        self._pgconn.pipeline_sync()

    def on_refused(self, step: Step) -> None:
        """Its result says that the server refused it, or passed over it after an earlier error."""
        if step.kind is _PREPARE:
            self._prepared.pop(step.subject, None)
        elif step.kind is _CLOSE:
            self._unclosed.append(step.subject)

    def _prepare(self, text: bytes) -> bytes:
        if len(self._prepared) >= self._prepared_count_max:
            self._close([self._prepared.popitem(last=False)[1]])
        self._prepared_ordinal += 1
        name = self._prepared[text] = b"s%d" % self._prepared_ordinal
        self._new.add(text)
        self._pgconn.send_prepare(name, text)
        self.expected.append(Step(_PREPARE, text))
        return name

    def _close(self, names: Collection[bytes]) -> None:
        for name in names:
            self._pgconn.send_close_prepared(name)
            self.expected.append(Step(_CLOSE, name))
