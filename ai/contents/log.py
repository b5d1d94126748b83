"""The texts of calls, for apps that want them kept: gathered here, and written a moment later.

They are for reading what was asked and answered, and no books: a call does not wait for them, and
what comes while the control database is away for long is dropped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

import msgspec

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.call import Call
from butterbase.ai.contents.rules import ContentRules
from butterbase.ai.contents.store import Content, ContentStore
from butterbase.ai.settings import AiSettings
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Statement

TEXT_BYTES_MAX = 1024**2
"""A request or answer that is longer is not kept."""
WAITING_BYTES_MAX = 32 * 1024**2
"""Of texts that wait to be written."""
BATCH_COUNT_MAX = 50

FLUSH_S = 1.0
SWEEP_S = 60.0

_log = logging.getLogger(__name__)


class ContentLog:
    """The gateway's seam; `run` lets it write."""

    def __init__(self, store: ContentStore, settings: AiSettings) -> None:
        self._store = store
        self._bytes_max = settings.ai_content_bytes_max
        self._waiting: deque[Content] = deque()
        self._waiting_bytes = 0
        self._dropped_count = 0
        self._flushing = asyncio.Lock()

    def begin(self, call: Call, asked: Asked, rules: ContentRules) -> "Draft":
        return Draft(self, call, asked, rules)

    def add(self, content: Content) -> None:
        if self._waiting_bytes + content.byte_count > WAITING_BYTES_MAX:
            self._dropped_count += 1
            return
        self._waiting.append(content)
        self._waiting_bytes += content.byte_count

    async def run(self) -> None:
        """Until cancelled."""
        swept_s = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._try_flush()
            now_s = asyncio.get_running_loop().time()
            if now_s - swept_s >= SWEEP_S:
                swept_s = now_s
                await self._try_sweep()

    async def close(self) -> None:
        """Write what waits."""
        await self._try_flush()

    async def flush(self) -> None:
        """Write what waits. Raises DatabaseUnavailableError; then it still waits."""
        async with self._flushing:
            while self._waiting:
                batch = [
                    self._waiting[at] for at in range(min(BATCH_COUNT_MAX, len(self._waiting)))
                ]
                statements = await asyncio.to_thread(self._statements, batch)
                await self._write(statements)
                for content in batch:
                    self._waiting.popleft()
                    self._waiting_bytes -= content.byte_count
            dropped, self._dropped_count = self._dropped_count, 0
            if dropped:
                _log.warning("the texts of %d calls are not kept: too many waited", dropped)

    async def _write(self, statements: Sequence[Statement]) -> None:
        try:
            await self._store.keep(statements)
        except DatabaseUnavailableError:
            raise
        except ButterbaseError as error:
            # It would be refused each time.
            _log.error("the texts of %d calls are not kept: %s", len(statements), error)

    def _statements(self, batch: Sequence[Content]) -> list[Statement]:
        return [self._store.statement(content) for content in batch]

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except ButterbaseError as error:
            _log.warning("texts of calls wait to be written: %s", error)

    async def _try_sweep(self) -> None:
        try:
            await self._store.sweep(bytes_max=self._bytes_max)
        except ButterbaseError as error:
            _log.warning("texts of calls that have expired wait to be deleted: %s", error)


class Draft:
    """A call that has not ended."""

    def __init__(self, log: ContentLog, call: Call, asked: Asked, rules: ContentRules) -> None:
        self._log = log
        self._call = call
        self._asked = asked
        self._rules = rules

    def end(self, parts: Sequence[bytes] | None) -> None:
        """`parts` are a whole answer's. What was refused before it went anywhere is not kept."""
        call, asked = self._call, self._asked
        if call.admitted is None and call.served_by is None:
            return
        # Where guards have hidden values from the provider, they are not kept either: the answer
        # that the client got has them again.
        request = msgspec.json.encode(asked.form) if asked.is_rewritten else asked.body
        answer = None if parts is None or asked.is_rewritten else b"".join(parts)
        caller = call.caller
        self._log.add(
            Content(
                caller.app_id,
                call.id,
                caller.user_id,
                _bounded(request),
                _bounded(answer),
                self._rules.days,
            )
        )


def _bounded(text: bytes | None) -> bytes | None:
    return text if text is not None and len(text) <= TEXT_BYTES_MAX else None
