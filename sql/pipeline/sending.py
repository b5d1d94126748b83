"""What goes out on a connection: prepared statements, and what the results to come will answer.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
"""

import enum
import re
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import pq

from butterbase.sql.pipeline.statement import Parameters

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

PREPARED_TEXT_MAX = 16 * 1024
"""Bytes of a text that is prepared by name: a longer one is rarely asked for twice."""

PREPARED_BYTES_MAX = 256 * 1024
"""Of all texts that a connection has prepared. What the server keeps for one, its plan above all,
is about a hundred times as large."""

_SQLSTATE = pq.DiagnosticField.SQLSTATE
_CONTEXT = pq.DiagnosticField.CONTEXT
_POSITION = pq.DiagnosticField.STATEMENT_POSITION
_SOURCE = pq.DiagnosticField.SOURCE_FUNCTION

_TEXT = int(pq.Format.TEXT)
_BINARY = int(pq.Format.BINARY)

_MISSING_SQLSTATE = b"26000"
"""A pooler or DISCARD dropped it."""
_RESULT_CHANGED_SQLSTATE = b"0A000"
_TYPES_CHANGED_SQLSTATES = frozenset({b"42804", b"42883"})
_OF_VALUES = b"22"

# A parameter of a portal, without the colon that stands before all parameters of one that runs, in
# whatever language the server speaks.
_OF_PARAMETER = re.compile(rb"[^:$]*\$\d")


class Kind(enum.Enum):
    QUERY = enum.auto()
    CHUNKED = enum.auto()
    CONTROL = enum.auto()
    """A statement of ours, whose result nobody asks for. It is not prepared by name, so that it
    works where all that was has been dropped."""
    PREPARE = enum.auto()
    CLOSE = enum.auto()


# Looking up a member of an enum takes longer than all else that is done with it.
_CHUNKED, _CONTROL, _PREPARE, _CLOSE = Kind.CHUNKED, Kind.CONTROL, Kind.PREPARE, Kind.CLOSE


class Step(Struct, frozen=True, gc=False):
    """What one result answers."""

    kind: Kind
    subject: bytes
    """The text; of CLOSE the name."""
    is_reused: bool = False
    """Whether an earlier transaction prepared it."""


def _never_ran(result: "PGresult", sqlstate: bytes) -> bool:
    """Whether the server refused to begin with it, as it does when DDL has overtaken it: it was
    parsed with the types that columns had.

    A function that fails when it is called may have done what no rollback undoes, so its own errors
    must be told apart: they have the function as their outermost context, and no place in our text.
    """
    context = result.error_field(_CONTEXT)
    if sqlstate == _MISSING_SQLSTATE:
        return context is None
    if sqlstate == _RESULT_CHANGED_SQLSTATE:
        return context is None and result.error_field(_SOURCE) == b"RevalidateCachedQuery"
    if sqlstate in _TYPES_CHANGED_SQLSTATES:
        return result.error_field(_POSITION) is not None
    outermost = (context or b"").rpartition(b"\n")[2]
    return sqlstate.startswith(_OF_VALUES) and _OF_PARAMETER.match(outermost) is not None


class Sender:
    """Statements are prepared once, and of those the ones last used are kept; long ones never."""

    def __init__(self, pgconn: "PGconn", *, prepared_count_max: int) -> None:
        """With 0 nothing is prepared, so that a pooler may lend a session by transaction."""
        self._pgconn = pgconn
        self._prepared_count_max = prepared_count_max
        self._text_max = PREPARED_TEXT_MAX if prepared_count_max else -1
        self._prepared: OrderedDict[bytes, bytes] = OrderedDict()
        self._prepared_bytes = 0
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
            self._close([self._forget(text) for text in {*anew} & self._prepared.keys()])

    def push(self, text: bytes, parameters: Parameters, kind: Kind) -> None:
        name = self._prepared.get(text)
        if name is not None:
            self._prepared.move_to_end(text)
        elif len(text) <= self._text_max and kind is not _CONTROL:
            name = self._prepare(text)
        else:
            self._pgconn.send_query_params(
                text, parameters, result_format=_BINARY if kind is _CHUNKED else _TEXT
            )
            self.expected.append(Step(kind, text))
            return
        if kind is _CHUNKED:
            self._pgconn.send_query_prepared(name, parameters, result_format=_BINARY)
        else:
            self._pgconn.send_query_prepared(name, parameters)
        self.expected.append(Step(kind, text, text not in self._new))

    def on_refused(self, step: Step) -> None:
        """Its result says that the server refused it, or passed over it after an earlier error."""
        if step.kind is _PREPARE:
            if step.subject in self._prepared:
                self._forget(step.subject)
        elif step.kind is _CLOSE:
            self._unclosed.append(step.subject)

    def is_stale(self, step: Step, result: "PGresult") -> bool:
        """Whether it failed because it was prepared earlier, and before anything of it ran.

        Where that may be, it is prepared anew the next time: not all servers tell of which
        parameter an error is.
        """
        if not step.is_reused:
            return False
        sqlstate = result.error_field(_SQLSTATE) or b""
        is_stale = _never_ran(result, sqlstate)
        may_be = is_stale or sqlstate.startswith(_OF_VALUES)
        if may_be and step.subject in self._prepared:
            self._unclosed.append(self._forget(step.subject))
        return is_stale

    def _prepare(self, text: bytes) -> bytes:
        self._prepared_bytes += len(text)
        while (
            len(self._prepared) >= self._prepared_count_max
            or self._prepared_bytes > PREPARED_BYTES_MAX
        ):
            self._close([self._forget(next(iter(self._prepared)))])
        self._prepared_ordinal += 1
        name = self._prepared[text] = b"butterbase_%d" % self._prepared_ordinal
        self._new.add(text)
        self._pgconn.send_prepare(name, text)
        self.expected.append(Step(_PREPARE, text))
        return name

    def _forget(self, text: bytes) -> bytes:
        """The name that it had."""
        self._prepared_bytes -= len(text)
        return self._prepared.pop(text)

    def _close(self, names: Collection[bytes]) -> None:
        for name in names:
            self._pgconn.send_close_prepared(name)
            self.expected.append(Step(_CLOSE, name))
