"""What an app is told of its cache, and what it may have deleted."""

from uuid import UUID

from msgspec import Struct

from butterbase.ai.cache.record import Part, Vault
from butterbase.ai.cache.store import QUERIES, read_bytea
from butterbase.ai.money.amounts import format_usd
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor, Statement

DAYS_MAX = 366
SAMPLE_COUNT = 20


class Totals(Struct, frozen=True, rename="camel", kw_only=True):
    """What the cache was asked for, and what came of it."""

    hits: int = 0
    semantic_hits: int = 0
    misses: int = 0
    bypasses: int = 0
    """Requests whose answers are not kept, or that did not want any that is."""
    hit_rate: float | None = None
    """Of those that were looked for; null where none was."""
    saved_usd: str
    saved_ms: int = 0
    """How long the calls took that got the answers."""


class Day(Totals, frozen=True, rename="camel", kw_only=True):
    day: str
    model: str


class Sample(Struct, frozen=True, rename="camel"):
    """A hit by meaning, for somebody to judge."""

    at: str
    model: str
    similarity: float
    asked: str
    answered: str
    """The question whose answer was given."""


class CacheReport(Struct, frozen=True, rename="camel"):
    entries: int
    bytes: int
    """With the texts of requests, sealed."""
    totals: Totals
    days: list[Day]
    """By model, newest first."""
    samples: list[Sample]
    """The latest hits by meaning."""


class CacheAdmin:
    """For one worker. What is deleted is heard of by all."""

    def __init__(self, control: Executor, vault: Vault) -> None:
        self._control = control
        self._vault = vault

    async def report(self, app_id: str, *, day_count: int) -> CacheReport:
        """Raises DatabaseError, DatabaseUnavailableError."""
        totals, days, samples = await self._control.run(
            Statement.of(QUERIES["totals"], app_id),
            Statement.of(QUERIES["days"], app_id, day_count),
            Statement.of(QUERIES["samples"], app_id, SAMPLE_COUNT),
        )
        return CacheReport(
            entries=int(totals.value() or 0),
            bytes=int(totals.value(0, 1) or 0),
            totals=_sum([_numbers(row) for row in days.rows()]),
            days=[_day(row) for row in days.rows()],
            samples=[s for row in samples.rows() if (s := self._sample(app_id, row)) is not None],
        )

    async def purge(
        self,
        app_id: str,
        *,
        user_id: UUID | None = None,
        model: str | None = None,
        before_s: float | None = None,
    ) -> int:
        """How many answers are deleted. Raises DatabaseError, DatabaseUnavailableError."""
        (result,) = await self._control.run(
            Statement.of(
                QUERIES["purge"],
                app_id,
                None if user_id is None else str(user_id),
                model,
                before_s,
            )
        )
        return int(result.value() or 0)

    def _sample(self, app_id: str, row: tuple[bytes | None, ...]) -> Sample | None:
        """None where it was sealed under another master key."""
        key, model, similarity, asked, kept, at = row
        id_ = read_bytea(key)

        def opened(sealed: bytes | None, part: Part) -> str:
            return self._vault.open(read_bytea(sealed), app_id=app_id, id_=id_, part=part).decode()

        try:
            return Sample(
                (at or b"").decode(),
                (model or b"").decode(),
                float(similarity or 0),
                opened(asked, "asked"),
                opened(kept, "kept"),
            )
        except SettingError:
            return None


def _numbers(row: tuple[bytes | None, ...]) -> list[int]:
    return [int(value or 0) for value in row[2:]]


def _day(row: tuple[bytes | None, ...]) -> Day:
    hits, semantic_hits, misses, bypasses, saved_nanos, saved_ms = _numbers(row)
    return Day(
        day=(row[0] or b"").decode(),
        model=(row[1] or b"").decode(),
        hits=hits,
        semantic_hits=semantic_hits,
        misses=misses,
        bypasses=bypasses,
        hit_rate=_rate(hits + semantic_hits, misses),
        saved_usd=format_usd(saved_nanos),
        saved_ms=saved_ms,
    )


def _sum(rows: list[list[int]]) -> Totals:
    hits, semantic_hits, misses, bypasses, nanos, ms = (
        [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * 6
    )
    return Totals(
        hits=hits,
        semantic_hits=semantic_hits,
        misses=misses,
        bypasses=bypasses,
        hit_rate=_rate(hits + semantic_hits, misses),
        saved_usd=format_usd(nanos),
        saved_ms=ms,
    )


def _rate(hit_count: int, miss_count: int) -> float | None:
    asked = hit_count + miss_count
    return round(hit_count / asked, 4) if asked else None
