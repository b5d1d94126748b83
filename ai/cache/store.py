"""The answers in the control database, which all workers share."""

from collections.abc import Collection, Sequence
from uuid import UUID

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from butterbase.ai.cache.counters import OUTCOMES, Counters
from butterbase.ai.cache.exact import Entry
from butterbase.ai.cache.record import Part, Record, Vault, encode_record
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor, Result, Statement, bytea

CHANNEL = "butterbase_ai_cache"
"""In the control database; a payload is how, the app and an entry's id: `k`, `f` and `l` as of
butterbase.ai_cache_land, `p`: answers of the app were deleted."""

LEASE = "15 s"
"""Within it a worker must say that it still works on what others wait for."""

QUERIES = load_queries("ai_cache")


class Meaning(Struct, frozen=True):
    """A question as it is compared."""

    space: bytes
    question: str
    embedder: str
    vector: bytes
    """In Postgres's text format."""


class Near(Struct, frozen=True):
    id: bytes
    model: str
    question: str
    entry: Entry


class Row(Struct, frozen=True):
    """An answer to be kept."""

    app_id: str
    id: bytes
    user_id: UUID | None
    prompt: bytes
    record: Record
    created_s: float
    expires_s: float
    meaning: Meaning | None
    replaced_before_s: float
    """An answer of before this time is replaced; a younger one stays."""


class Store:
    def __init__(self, control: Executor, vault: Vault, worker: UUID) -> None:
        """`control` is the control database's, as butterbase_service."""
        self._control = control
        self._vault = vault
        self._worker = str(worker).encode()

    # All that follow raise DatabaseError and DatabaseUnavailableError.

    async def look(self, app_id: str, id_: bytes, *, oldest_s: float) -> Entry | None:
        result = await self._find(app_id, id_, oldest_s, None)
        return self._found(app_id, id_, result) if result.row_count else None

    async def look_or_lead(self, app_id: str, id_: bytes, *, oldest_s: float) -> Entry | bool:
        """The answer; else whether the caller is the one to ask for it, and not another worker."""
        result = await self._find(app_id, id_, oldest_s, self._worker)
        verdict = result.value()
        if verdict != b"hit":
            return verdict == b"lead"
        return self._found(app_id, id_, result) or True

    async def near(
        self, app_id: str, meaning: Meaning, *, oldest_s: float, similarity: float
    ) -> list[Near]:
        """Questions of at least this similarity, best first, a few at most."""
        (result,) = await self._control.run(
            Statement(
                QUERIES["near"],
                (
                    app_id.encode(),
                    bytea(meaning.space),
                    meaning.embedder.encode(),
                    meaning.vector,
                    repr(oldest_s).encode(),
                    repr(similarity).encode(),
                ),
            )
        )
        found = (self._near(app_id, row) for row in result.rows())
        return [near for near in found if near is not None]

    async def keep(self, row: Row) -> None:
        data = encode_record(row.record)
        assert data is not None
        record, meaning, id_ = row.record, row.meaning, row.id

        def seal(text: bytes, part: Part) -> bytes:
            return bytea(self._vault.seal(text, app_id=row.app_id, id_=id_, part=part))

        await self._control.run(
            Statement.of(
                QUERIES["keep"],
                row.app_id,
                bytea(id_),
                None if row.user_id is None else str(row.user_id),
                _clean(record.provider),
                _clean(record.model),
                seal(row.prompt, "prompt"),
                None if meaning is None else seal(meaning.question.encode(), "question"),
                seal(data, "answer"),
                record.usage.prompt_tokens,
                record.usage.completion_tokens,
                record.cost_nanos,
                record.latency_ms,
                row.created_s,
                row.expires_s,
                None if meaning is None else bytea(meaning.space),
                None if meaning is None else meaning.embedder,
                None if meaning is None else meaning.vector,
                row.replaced_before_s,
            )
        )

    async def land(self, app_id: str, id_: bytes, how: str) -> None:
        """End this worker's flight, and tell those who wait."""
        await self._control.run(
            Statement.of(QUERIES["land"], app_id, bytea(id_), self._worker, how)
        )

    async def renew(self, ids: Collection[bytes]) -> None:
        await self._control.run(Statement.of(QUERIES["renew"], self._worker, LEASE, _array(ids)))

    async def sweep(self, *, bytes_max: int) -> int:
        """How many entries are gone."""
        (result,) = await self._control.run(Statement.of(QUERIES["sweep"], bytes_max))
        return int(result.value() or 0)

    async def count(self, counters: Counters, *, now_s: float) -> None:
        statements = [
            Statement.of(
                QUERIES["count_day"],
                app_id,
                now_s,
                model,
                *(tally.outcomes[outcome] for outcome in OUTCOMES),
                tally.saved_nanos,
                tally.saved_ms,
            )
            # In one order, since two workers lock the same rows.
            for (app_id, model), tally in sorted(counters.tallies.items())
        ]
        if counters.uses:
            ids = sorted(counters.uses)
            counts = ",".join(str(counters.uses[id_]) for id_ in ids)
            statements.append(Statement.of(QUERIES["count_uses"], _array(ids), f"{{{counts}}}"))
        if statements:
            # All or none: who fails counts the same once more.
            await self._control.run(*statements)

    async def add_sample(
        self,
        app_id: str,
        near: Near,
        *,
        asked: str,
        user_id: UUID | None,
    ) -> None:
        """A hit by meaning, for review."""
        id_ = near.id
        await self._control.run(
            Statement.of(
                QUERIES["add_sample"],
                app_id,
                bytea(id_),
                None if user_id is None else str(user_id),
                near.model,
                near.entry.similarity or 0.0,
                bytea(self._vault.seal(asked.encode(), app_id=app_id, id_=id_, part="asked")),
                bytea(
                    self._vault.seal(near.question.encode(), app_id=app_id, id_=id_, part="kept")
                ),
            )
        )

    async def _find(self, app_id: str, id_: bytes, oldest_s: float, worker: bytes | None) -> Result:
        parameters = (app_id.encode(), bytea(id_), repr(oldest_s).encode(), worker, LEASE.encode())
        (result,) = await self._control.run(Statement(QUERIES["find"], parameters))
        return result

    def _found(self, app_id: str, id_: bytes, result: Result) -> Entry | None:
        ((_, answer, created_s, expires_s),) = result.rows()
        return self._opened(app_id, id_, answer, created_s, expires_s)

    def _near(self, app_id: str, row: Sequence[bytes | None]) -> Near | None:
        _, key, model, question, answer, created_s, expires_s, similarity = row
        id_ = read_bytea(key)
        entry = self._opened(app_id, id_, answer, created_s, expires_s, similarity)
        try:
            sealed = read_bytea(question)
            asked = self._vault.open(sealed, app_id=app_id, id_=id_, part="question")
        except SettingError:
            return None
        if entry is None:
            return None
        return Near(id_, (model or b"").decode(), asked.decode(), entry)

    def _opened(
        self,
        app_id: str,
        id_: bytes,
        answer: bytes | None,
        created_s: bytes | None,
        expires_s: bytes | None,
        similarity: bytes | None = None,
    ) -> Entry | None:
        """None for what was sealed under another master key: it is none to us."""
        try:
            record = self._vault.open(read_bytea(answer), app_id=app_id, id_=id_, part="answer")
        except SettingError:
            return None
        return Entry(
            app_id,
            record,
            float(created_s or 0),
            float(expires_s or 0),
            None if similarity is None else float(similarity),
        )


def read_bytea(value: bytes | None) -> bytes:
    """Of the text format."""
    assert value is not None
    return bytes.fromhex(value[2:].decode())


def write_vector(vector: npt.NDArray[np.float32]) -> bytes:
    """In the text format."""
    return ("[" + ",".join(map(repr, vector.tolist())) + "]").encode()


def _array(values: Collection[bytes]) -> bytes:
    """Of bytea, in the text format."""
    return b"{" + b",".join(b'"\\\\x%b"' % value.hex().encode() for value in values) + b"}"


def _clean(text: str) -> str:
    return text.replace("\0", "")
