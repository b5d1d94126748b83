"""Projection `embeddings`: changes of indexed rows → marks.

It writes down which rows have changed, which cannot fail. What can be slow or away, the sources
and the model, is the indexer's part (projections/indexes/), which reads a marked row as it is by
then, cuts it into passages, and publishes those with their vectors.

An index is made under a lock that keeps others from writing to its table, and its DDL is in the
log. So every change that the log tells before that is visible to whoever then reads the table, and
every one behind it finds the table among the known sources.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.changes import (
    Change,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    QualifiedName,
    Relation,
    Row,
    Truncate,
    Update,
)
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.projections.indexes.marks import (
    Key,
    Source,
    mark_all,
    mark_all_documents,
    mark_documents,
    mark_indexes,
    mark_known_documents,
    mark_rows,
    read_sources,
)

DOCUMENTS = ("ai", "documents")
COLLECTIONS = ("ai", "collections")
"""A change of one may begin a version: the indexer is to look."""


class _DocumentMarks(Struct):
    changed: dict[str, str] = {}
    """Id → its collection's."""
    gone: set[str] = set()
    is_all: bool = False


class _IndexMarks(Struct):
    keys: set[Key] = set()
    is_all: bool = False
    is_unknown: bool = False
    """Whether there were rows whose key the log did not tell."""


class Embeddings:
    """See projections/projection.py."""

    name = "embeddings"
    # In the order in which all lock them.
    tables = (("ai", "index_versions"), ("ai", "index_rows"))

    def __init__(self) -> None:
        self._sources: frozenset[QualifiedName] | None = None
        """None: not known. Any commit may then concern them."""
        self._ddl_lsn: LSN = ZERO
        """Of the last DDL that was told. Sources that were read before are not all."""

    def wants(self, commit: Commit) -> bool:
        if commit.lsn > self._ddl_lsn and commit.has_ddl:
            self._ddl_lsn, self._sources = commit.lsn, None
            return True
        tables = commit.tables
        if DOCUMENTS in tables or COLLECTIONS in tables:
            return True
        return bool(tables) if self._sources is None else not self._sources.isdisjoint(tables)

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        sources = await read_sources(conn)
        await _mark_documents(conn, commits)
        for source in sources:
            marks = _index_marks(source, commits)
            if marks.keys:
                await mark_rows(conn, source.index_id, marks.keys)
            if marks.is_all or marks.is_unknown:
                await mark_indexes(conn, [source.index_id], sweep=marks.is_unknown)
        if commits[-1].lsn >= self._ddl_lsn:
            self._sources = frozenset(source.table for source in sources)

    async def resync(self, conn: AsyncConnection) -> None:
        """Every row is looked at; one that is as before costs no vectors."""
        await mark_all(conn, anew=False)

    async def rebuild(self, conn: AsyncConnection) -> None:
        """Every row is cut anew. Passages that are as before stay, with their vectors."""
        await mark_all(conn, anew=True)


async def _mark_documents(conn: AsyncConnection, commits: Sequence[Commit]) -> None:
    marks = _DocumentMarks()
    for commit in commits:
        for change in commit.changes_of(DOCUMENTS):
            match change:
                case Insert(relation, new) | Update(relation, new, _):
                    values = _values(relation, new)
                    marks.changed[str(values["id"])] = str(values["collection_id"])
                case Delete(relation, old):
                    marks.gone.add(str(_values(relation, old)["id"]))
                case Truncate():
                    marks.is_all = True
                case LogicalMessage():
                    pass
    if marks.changed:
        await mark_documents(conn, marks.changed.items())
    if marks.gone:
        await mark_known_documents(conn, marks.gone)
    if marks.is_all:
        await mark_all_documents(conn)


def _index_marks(source: Source, commits: Sequence[Commit]) -> _IndexMarks:
    marks = _IndexMarks()
    for commit in commits:
        for change in commit.changes_of(source.table):
            if isinstance(change, Truncate):
                marks.is_all = True
            for key in _keys(source, change):
                if key is None:
                    marks.is_unknown = True
                else:
                    marks.keys.add(key)
    return marks


def _keys(source: Source, change: Change) -> Iterator[Key | None]:
    """Of the rows that the change concerns; None where the log does not tell."""
    match change:
        case Insert(relation, row) | Update(relation, row, None) | Delete(relation, row):
            yield _key(source, relation, row)
        case Update(relation, new, old):
            assert old is not None
            before = _key(source, relation, old)
            # A key that is long is not told again where it stayed the same.
            yield _key(source, relation, new) or before
            # With a replica identity that lacks the key, the new row is all that is told.
            if before is not None:
                yield before
        case Truncate() | LogicalMessage():
            pass


def _key(source: Source, relation: Relation, row: Row) -> Key | None:
    values = _values(relation, row)
    key = tuple(values.get(column) for column in source.key_columns)
    told = tuple(value for value in key if isinstance(value, str))
    return told if len(told) == len(key) else None


def _values(relation: Relation, row: Row) -> dict[str, object]:
    return {column.name: value for column, value in relation.pairs(row)}
