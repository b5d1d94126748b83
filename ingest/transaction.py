"""One transaction while the log tells it, and its changes afterwards.

The messages are kept as frames, undecoded; past a limit, which the assembler watches over all open
transactions, those of one go to a temporary file without a name, which is gone with its last
reader.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Final

from butterbase.ingest.changes import Change, LoggedChanges, QualifiedName, Relation, table_of
from butterbase.ingest.errors import UnexpectedMessageError
from butterbase.ingest.frames import PAYLOAD_AT
from butterbase.ingest.lsn import LSN
from butterbase.ingest.pgoutput.rows import decode_changes
from butterbase.ingest.spill import Spill

FRAME_OVERHEAD_BYTES: Final = 64
"""Of a frame in a list, beside its own length: the object's head, and its place in the list."""

DECODED_COUNT_MAX: Final = 1_000
"""A commit of at most so many changes is decoded once for all of its readers."""

ROWS: Final = frozenset({b"I", b"U", b"D"})


class Transaction:
    """Gathers the messages of one transaction."""

    def __init__(
        self, xid: int, relations: Mapping[int, Relation], *, is_streamed: bool = False
    ) -> None:
        """`relations` as they are described so far; the mapping does not change."""
        self.xid = xid
        self.is_streamed = is_streamed
        self.origin: str | None = None
        self.prepared_at: LSN | None = None
        """Of one that is prepared: where the record of that begins."""
        self.held_bytes = 0
        """In memory."""
        self.described: list[Relation] = []
        self.replaces: dict[int, Relation | None] = {}
        """By oid, what others took the relation for when this transaction described it."""
        self._relations = relations
        self._tables: dict[int, set[QualifiedName]] = {}
        self._may_have_ddl = False
        self._frames: list[bytes] = []
        self._file: Spill | None = None
        # By xid of the subtransaction, or b"" where messages name none.
        self._counts: dict[bytes, int] = {}
        self._aborted: set[bytes] = set()
        self._key_at = slice(PAYLOAD_AT + 1, PAYLOAD_AT + (9 if is_streamed else 5))
        self._last_key = b""

    def take_rows(self, frames: Sequence[bytes], first: int) -> int:
        """Take the row changes that stand there one after the other; the index behind them.

        Raises UnexpectedMessageError.
        """
        key_at = self._key_at
        key = self._last_key
        append = self._frames.append
        size = 0
        index = counted = first
        for index in range(first, len(frames)):
            frame = frames[index]
            if frame[PAYLOAD_AT : PAYLOAD_AT + 1] not in ROWS:
                break
            if frame[key_at] != key:
                self._count(key, index - counted)
                counted = index
                key = frame[key_at]
                self._meet(key)
            append(frame)
            size += len(frame)
        else:
            index = len(frames)
        self._count(key, index - counted)
        self._last_key = key
        self.held_bytes += size + (index - first) * FRAME_OVERHEAD_BYTES
        return index

    def take(self, frame: bytes, *, change_count: int = 1, oids: Collection[int] = ()) -> None:
        """Take a message that is no row change."""
        for oid in oids:
            self._meet_table(oid)
        self._count(frame[PAYLOAD_AT + 1 : PAYLOAD_AT + 5] + b"----", change_count)
        self._frames.append(frame)
        self.held_bytes += len(frame) + FRAME_OVERHEAD_BYTES

    def take_ddl(self) -> None:
        self._may_have_ddl = True

    def take_description(self, frame: bytes, relation: Relation) -> None:
        """From here on the relation is so, to this transaction."""
        self.described.append(relation)
        self._tables.setdefault(relation.oid, set()).add(relation.qualified_name)
        self._frames.append(frame)
        self.held_bytes += len(frame) + FRAME_OVERHEAD_BYTES

    def abort_subtransaction(self, xid: int) -> None:
        name = xid.to_bytes(4, "big")
        self._aborted.add(name)
        self._counts.pop(name, None)

    def spill(self, open_file: Callable[[], IO[bytes]]) -> None:
        """Move what is held in memory to the file."""
        if self._file is None:
            self._file = Spill(open_file())
        self._file.write(self._frames)
        self._frames = []
        self.held_bytes = 0

    @property
    def is_spilled(self) -> bool:
        return self._file is not None

    def changes(self) -> LoggedChanges:
        """What was gathered. The transaction is not used any more."""
        return _Changes(
            self._frames,
            self._file,
            relations=self._relations,
            described=self.described,
            tables=self._tables,
            may_have_ddl=self._may_have_ddl,
            aborted=self._aborted if self.is_streamed else None,
            count=sum(self._counts.values()),
            held_bytes=self.held_bytes,
        )

    def _count(self, key: bytes, count: int) -> None:
        if count:
            name = key[:4] if self.is_streamed else b""
            self._counts[name] = self._counts.get(name, 0) + count

    def _meet(self, key: bytes) -> None:
        self._meet_table(int.from_bytes(key[-4:], "big"))

    def _meet_table(self, oid: int) -> None:
        if oid in self._tables:
            return
        relation = self._relations.get(oid)
        if relation is None:
            raise UnexpectedMessageError(f"a change of relation {oid}, which was not described")
        self._tables[oid] = {relation.qualified_name}


class _Changes(LoggedChanges):
    __slots__ = (
        "_aborted",
        "_count",
        "_decoded",
        "_described",
        "_file",
        "_frames",
        "_held_bytes",
        "_may_have_ddl",
        "_relations",
        "_tables",
    )

    def __init__(
        self,
        frames: list[bytes],
        file: Spill | None,
        *,
        relations: Mapping[int, Relation],
        described: Sequence[Relation],
        tables: Mapping[int, set[QualifiedName]],
        may_have_ddl: bool,
        aborted: Collection[bytes] | None,
        count: int,
        held_bytes: int,
    ) -> None:
        """`aborted` is None when the messages name no transactions; `frames` follow the file's."""
        self._frames = frames
        self._file = file
        self._relations = relations
        self._described = described
        self._tables = tables
        self._may_have_ddl = may_have_ddl
        self._aborted = aborted
        self._count = count
        self._held_bytes = held_bytes
        self._decoded: tuple[Change, ...] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Change]:
        if self._file is not None or self._count > DECODED_COUNT_MAX:
            return self._decode()
        if self._decoded is None:
            self._decoded = tuple(self._decode())
            self._frames = []
        return iter(self._decoded)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | LoggedChanges):
            return NotImplemented
        if len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._count} changes of {sorted(self.tables)}>"

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    @property
    def tables(self) -> frozenset[QualifiedName]:
        return frozenset().union(*self._tables.values())

    @property
    def may_have_ddl(self) -> bool:
        return self._may_have_ddl

    def of(self, tables: Collection[QualifiedName]) -> Iterator[Change]:
        oids = {oid for oid, names in self._tables.items() if not names.isdisjoint(tables)}
        if not oids:
            return iter(())
        found = iter(self._decoded) if self._decoded is not None else self._decode(oids)
        if all(self._tables[oid].issubset(tables) for oid in oids) and self._decoded is None:
            return found
        # Asked again: a table may have got another name on the way.
        return (change for change in found if table_of(change) in tables)

    def _decode(self, wanted: Collection[int] | None = None) -> Iterator[Change]:
        return decode_changes(
            self._read(),
            self._relations,
            self._described,
            is_streamed=self._aborted is not None,
            aborted=self._aborted or (),
            wanted=wanted,
        )

    def _read(self) -> Iterator[bytes]:
        if self._file is not None:
            yield from self._file.read()
        yield from self._frames
