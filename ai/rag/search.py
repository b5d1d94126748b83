"""A question → passages: by words, by meaning, by both, as the caller.

How is said in sql/migrations/app/0019_search.sql. For a version of an index, Postgres makes the
text of the search, with what would else mislead its planner written into it; it is then prepared
once a connection, as any statement is.
"""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from butterbase.ai.cache.store import write_vector
from butterbase.ai.embedders.errors import EmbeddingMismatchError
from butterbase.ai.rag.errors import (
    CollectionNotFoundError,
    IndexNotFoundError,
    RagError,
    RagRequestError,
)
from butterbase.ai.rag.vectors import Vector
from butterbase.projections.embedder import EmbedderError, Wanted
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.pipeline.statement import Parameters

QUERIES = load_queries("rag")

QUERY_CHARS_MAX = 8_000
TOP_K_MAX = 100
FILTER_BYTES_MAX = 16 * 1024
NO_FILTER = b"{}"
CANDIDATES_MIN = 100
"""That the index over vectors keeps, whatever is asked for: what its recall depends on."""

KNOWN_S = 10.0
KNOWN_COUNT_MAX = 500
"""Names that are known at a time; each is some 6 KB."""
ATTEMPT_COUNT_MAX = 3
"""A version may be replaced, and its table dropped, while a question is asked of it."""
UNDEFINED_TABLE = "42P01"
INVALID_PARAMETER = "22023"
"""What the functions raise about a filter."""

Mode: TypeAlias = Literal["hybrid", "vector", "text"]
Embed: TypeAlias = Callable[[Wanted, str], Awaitable[Vector]]
"""A text → its vector. Raises EmbedderError, and of a model of the app's what a call does."""


class Question(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    query: Annotated[str, Meta(min_length=1, max_length=QUERY_CHARS_MAX)]
    top_k: Annotated[int, Meta(ge=1, le=TOP_K_MAX)] = 5
    threshold: Annotated[float, Meta(ge=-1, le=1)] | None = None
    """Cosine similarity below which a passage is left out."""
    filter: Raw = Raw(NO_FILTER)
    mode: Mode = "hybrid"
    rerank: bool = False
    synthesize: bool = False
    model: Annotated[str, Meta(min_length=1)] | None = None
    """That writes the answer, and orders the passages."""
    stream: bool = False

    def check(self) -> None:
        """Raises RagRequestError."""
        if self.mode == "text" and self.threshold is not None:
            raise RagRequestError(
                "threshold is a similarity of vectors, and mode text compares none",
                hint="leave it out, or choose mode hybrid or vector",
            )
        if self.stream and not self.synthesize:
            raise RagRequestError("stream is for an answer", hint="set synthesize as well")
        if self.model is not None and not (self.synthesize or self.rerank):
            raise RagRequestError(
                "model is the one that writes the answer or orders the passages",
                hint="set synthesize or rerank as well; the model of vectors is the index's own",
            )
        if len(bytes(self.filter)) > FILTER_BYTES_MAX:
            raise RagRequestError(f"the filter is larger than {FILTER_BYTES_MAX} bytes")


class Place(Struct, frozen=True):
    """What a question is asked of."""

    kind: Literal["collection", "index"]
    name: str

    @property
    def missing(self) -> RagError:
        return CollectionNotFoundError() if self.kind == "collection" else IndexNotFoundError()


class Asker(Struct, frozen=True):
    """Whose question it is."""

    app_id: str
    executor: Executor
    claims: Claims


class _Opened(Struct, frozen=True):
    """What a place's name stood for."""

    version: bytes
    wanted: Wanted
    dimensions: int
    search: bytes | None
    """None where the database is to decide how to search."""
    known_until_s: float
    is_known: bool = False
    """For a while: there may be another version by now."""


class Searcher:
    """What names stand for is known for a while, so that a question costs one round trip. Each
    search checks in its own transaction that they still do, for this caller, and that what it read
    was whole: the passages of a version that was replaced are cleared away.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[object, ...], _Opened] = {}

    async def find(
        self, asker: Asker, place: Place, question: Question, *, count: int, embed: Embed
    ) -> bytes:
        """The best `count` passages, the best first, as a JSON array.

        Raises CollectionNotFoundError, IndexNotFoundError, RagRequestError, EmbedderError,
        EmbeddingMismatchError, what `embed` and what the executor does.
        """
        embed = _once(embed)
        claims = asker.claims
        key = (asker.app_id, claims.role, claims.subject, place, question.mode, count)
        for attempt in range(1, ATTEMPT_COUNT_MAX + 1):
            opened = self._opened.get(key)
            if opened is None or opened.known_until_s < monotonic():
                opened = await _open(asker, place, question.mode, count)
                if opened is None:
                    await _check_filter(asker, question)
                    return b"[]"
                self._keep(key, replace(opened, is_known=True))
            try:
                found = await self._search(asker, place, question, count, opened, embed)
            except DatabaseError as error:
                self._opened.pop(key, None)
                if error.sqlstate == INVALID_PARAMETER:
                    raise _refusal(error) from error
                if error.sqlstate != UNDEFINED_TABLE or attempt == ATTEMPT_COUNT_MAX:
                    raise
            else:
                if found is not None:
                    return found
                self._opened.pop(key, None)
        raise place.missing

    def _keep(self, key: tuple[object, ...], opened: _Opened) -> None:
        self._opened.pop(key, None)
        if len(self._opened) >= KNOWN_COUNT_MAX:
            del self._opened[next(iter(self._opened))]
        self._opened[key] = opened

    async def _search(
        self,
        asker: Asker,
        place: Place,
        question: Question,
        count: int,
        opened: _Opened,
        embed: Embed,
        *,
        is_present: bool = False,
    ) -> bytes | None:
        """None where the name does not stand for it any more.

        Passages of deleted documents, which lie there until they are cleared away, take no places
        where it `is_present`: slower, and so only asked for where some were met.
        """
        vector = None
        if question.mode != "text":
            try:
                vector = await _embed(embed, opened, question.query)
            except EmbedderError:
                if opened.is_known:
                    return None
                raise
        values: Parameters = (question.query.encode(), vector, _number(question.threshold))
        search, filter_ = opened.search, bytes(question.filter)
        if search is None or filter_ != NO_FILTER or is_present:
            search = QUERIES["search_version"]
            present = b"true" if is_present else b"false"
            more = (opened.version, b"%d" % count, filter_, question.mode.encode(), present)
            values = (*values, *more)
        shape = QUERIES[f"passages_of_{place.kind}"]
        candidates = max(CANDIDATES_MIN, 2 * count)
        _, found, still = await asker.executor.run_as(
            asker.claims,
            Statement.of(QUERIES["prepare_search"], str(candidates)),
            Statement(shape.replace(b"{search}", search), values),
            Statement.of(QUERIES[f"check_{place.kind}"], opened.version, place.name),
            read_only=True,
        )
        if not still.row_count:
            return None
        if found.value(column=1) != b"0" and not is_present:
            return await self._search(asker, place, question, count, opened, embed, is_present=True)
        return found.value() or b"[]"


def _once(embed: Embed) -> Embed:
    """A question that is asked again, of a version that was replaced meanwhile, has its vector."""
    known: dict[Wanted, Vector] = {}

    async def embed_once(wanted: Wanted, text: str) -> Vector:
        if wanted not in known:
            known[wanted] = await embed(wanted, text)
        return known[wanted]

    return embed_once


async def _embed(embed: Embed, opened: _Opened, text: str) -> bytes:
    vector = await embed(opened.wanted, text)
    if len(vector) != opened.dimensions:
        raise EmbeddingMismatchError(
            f"the index has {opened.dimensions} dimensions, its model answers with {len(vector)}",
            hint="a version with the new ones is made beside it, and used once it is complete",
        )
    return write_vector(vector)


async def _open(asker: Asker, place: Place, mode: Mode, count: int) -> _Opened | None:
    """None while it has no passages. Raises CollectionNotFoundError, IndexNotFoundError."""
    opening = Statement.of(QUERIES[f"open_{place.kind}"], place.name, mode, count)
    (opened,) = await asker.executor.run_as(asker.claims, opening, read_only=True)
    if not opened.row_count:
        raise place.missing
    version, index, wanted, model, dimensions, search = opened.rows()[0]
    if version is None or model is None or dimensions is None:
        return None
    asked_for = None if wanted is None else wanted.decode()
    known = Wanted(asked_for, model.decode(), (index or b"").decode())
    return _Opened(version, known, int(dimensions), search, monotonic() + KNOWN_S)


async def _check_filter(asker: Asker, question: Question) -> None:
    """Raises RagRequestError: what is wrong is told before there is anything to find."""
    if (filter_ := bytes(question.filter)) == NO_FILTER:
        return
    try:
        checking = Statement(QUERIES["check_filter"], (filter_,))
        await asker.executor.run_as(asker.claims, checking, read_only=True)
    except DatabaseError as error:
        if error.sqlstate != INVALID_PARAMETER:
            raise
        raise _refusal(error) from error


def _refusal(error: DatabaseError) -> RagRequestError:
    return RagRequestError(error.message, hint=error.hint)


def _number(value: float | None) -> bytes | None:
    return None if value is None else repr(value).encode()
