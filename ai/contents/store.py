"""Texts of calls in the control database, sealed.

Each is sealed under a key of its own, made of the master key, the app and the call: what is moved
to another row does not open there. The table is not in the write-ahead log, and so in no replica
and no base backup: what is deleted is gone.
"""

import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.money.amounts import format_usd
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import SettingError
from butterbase.sql.pipeline import Executor, Statement, bytea
from butterbase.sql.secrets import MasterKey

QUERIES = load_queries("ai_contents")

_ROW_BYTES = 500

_Part: TypeAlias = Literal["request", "answer"]


class Content(Struct, frozen=True):
    """What a call was asked and answered."""

    app_id: str
    call_id: UUID
    user_id: UUID | None
    request: bytes | None
    """None where it is too long."""
    answer: bytes | None
    """None where there is none that is whole, or it is not to be kept."""
    days: int

    @property
    def byte_count(self) -> int:
        """In memory, about."""
        return len(self.request or b"") + len(self.answer or b"") + _ROW_BYTES


class KeptCall(Struct, frozen=True, rename="camel"):
    """A call whose texts are kept; what its event says of it is null until that is written."""

    call_id: UUID
    at: str
    expires_at: str
    user_id: UUID | None
    request_id: str | None
    endpoint: str | None
    provider: str | None
    model: str | None
    status: str | None
    cost_usd: str | None


class KeptContent(Struct, frozen=True, rename="camel"):
    call: KeptCall
    request: Raw | str | None
    """JSON; as text where it is none."""
    answer: Raw | str | None


class _Row(Struct, frozen=True):
    call_id: UUID
    at: str
    expires_at: str
    user_id: UUID | None
    request_id: str | None
    data: "_Event | None"
    request: str | None = None
    answer: str | None = None

    @property
    def call(self) -> KeptCall:
        event = self.data
        return KeptCall(
            self.call_id,
            self.at,
            self.expires_at,
            self.user_id,
            self.request_id,
            None if event is None else event.endpoint,
            None if event is None else event.provider,
            None if event is None else event.model,
            None if event is None else event.status,
            None if event is None else format_usd(event.cost_nanos),
        )


class _Event(Struct, frozen=True):
    endpoint: str
    provider: str
    model: str
    status: str
    cost_nanos: int = 0


_ROWS = msgspec.json.Decoder(list[_Row])
_JSON = msgspec.json.Decoder(Raw)


class ContentStore:
    def __init__(self, control: Executor, master_key: MasterKey) -> None:
        """`control` is the control database's, as butterbase_service."""
        self._control = control
        self._master_key = master_key

    # All that follow raise DatabaseError and DatabaseUnavailableError.

    def statement(self, content: Content) -> Statement:
        """That keeps it; sealing and packing take time."""
        app_id, call_id = content.app_id, content.call_id
        return Statement.of(
            QUERIES["keep"],
            str(call_id),
            app_id,
            None if content.user_id is None else str(content.user_id),
            content.days,
            self._seal(content.request, app_id, call_id, "request"),
            self._seal(content.answer, app_id, call_id, "answer"),
        )

    async def keep(self, statements: Sequence[Statement]) -> None:
        await self._control.run(*statements)

    async def list_calls(
        self, app_id: str, *, user_id: UUID | None, before: UUID | None, count: int
    ) -> list[KeptCall]:
        """Newest first; `before` is the last of those that were listed."""
        found = await self._rows(
            "list",
            app_id,
            None if user_id is None else str(user_id),
            None if before is None else str(before),
            count,
        )
        return [row.call for row in found]

    async def read(self, app_id: str, call_id: UUID) -> KeptContent | None:
        found = await self._rows("read", app_id, str(call_id))
        for row in found:
            return KeptContent(
                row.call,
                self._open(row.request, app_id, call_id, "request"),
                self._open(row.answer, app_id, call_id, "answer"),
            )
        return None

    async def purge(self, app_id: str, *, user_id: UUID | None, older_than_s: int | None) -> int:
        """How many are gone."""
        user = None if user_id is None else str(user_id)
        statement = Statement.of(QUERIES["purge"], app_id, user, older_than_s)
        (result,) = await self._control.run(statement)
        return int(result.value() or 0)

    async def sweep(self, *, bytes_max: int) -> int:
        """Delete what has expired, and of each app what is too much; how many are gone."""
        (result,) = await self._control.run(Statement.of(QUERIES["sweep"], bytes_max))
        return int(result.value() or 0)

    async def _rows(self, name: str, *values: str | int | None) -> list[_Row]:
        (result,) = await self._control.run(Statement.of(QUERIES[name], *values))
        return _ROWS.decode(result.value() or b"[]")

    def _seal(self, text: bytes | None, app_id: str, call_id: UUID, part: _Part) -> bytes | None:
        if text is None:
            return None
        purpose = _purpose(app_id, call_id, part)
        return bytea(self._master_key.seal(zlib.compress(text, 1), purpose=purpose))

    def _open(
        self, sealed: str | None, app_id: str, call_id: UUID, part: _Part
    ) -> Raw | str | None:
        """None also for what was sealed with a key that is gone."""
        if sealed is None:
            return None
        try:
            packed = self._master_key.open(
                bytes.fromhex(sealed), purpose=_purpose(app_id, call_id, part)
            )
        except SettingError:
            return None
        text = zlib.decompress(packed)
        try:
            return _JSON.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return text.decode("utf-8", "replace")


def _purpose(app_id: str, call_id: UUID, part: _Part) -> str:
    return f"ai_content:{app_id}:{call_id}:{part}"
