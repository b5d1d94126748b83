"""The outbox: mails are written with what they are about, in one transaction, and sent afterwards.

So an answer never waits for a mail server, and what was promised in a commit is sent by whoever
finds it: the worker that wrote it, or the next to start. A mail may be sent twice, never lost.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.mail.errors import MailRefusedError, MailUnavailableError
from butterbase.api.auth.mail.message import Letter, Mail
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import ButterbaseError, SettingError
from butterbase.sql.pipeline import Executor, Statement, Value
from butterbase.sql.secrets import MasterKey

logger = logging.getLogger(__name__)

QUERIES = load_queries("auth_mail")

CLAIMED_COUNT_MAX: Final = 5
SENDING_S_MAX: Final = 60.0
LEASE_S: Final = 2 * SENDING_S_MAX
"""A mail that was claimed for so long is another sender's to try."""
PAUSE_S_MIN: Final = 5.0
PAUSE_S_MAX: Final = 1800.0
AGE_S_MAX: Final = 24 * 3600.0
"""Of a mail that is still tried: no link in it is good for longer."""
KEPT_S: Final = 7 * 24 * 3600.0

_LETTER: Final = msgspec.json.Decoder(Letter)


class Mailer(Protocol):
    async def send(self, mail: Mail) -> None:
        """Raises MailUnavailableError, MailRefusedError."""


class Outbox:
    """One app's, in one worker. It has a task while there is something to send, and no longer."""

    def __init__(
        self,
        app_id: str,
        service: Executor,
        master_key: MasterKey,
        config: Callable[[], Awaitable[AuthConfig]],
        mailer: Callable[[AuthConfig], Mailer | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`mailer` gives None for an app whose mails stay here, for its developer to read."""
        self._app_id = app_id
        self._service = service
        self._master_key = master_key
        self._purpose = f"mail:{app_id}"
        self._config = config
        self._mailer = mailer
        self._clock = clock
        self._is_kicked = False
        self._task: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def seal(self, letter: Letter) -> bytes:
        return self._master_key.seal(msgspec.json.encode(letter), purpose=self._purpose)

    def open(self, sealed: bytes) -> Letter:
        """Raises SettingError when it was sealed under another master key."""
        return _LETTER.decode(self._master_key.open(sealed, purpose=self._purpose))

    def kick(self) -> None:
        """Something may be due: send it, after whatever is being done now."""
        self._is_kicked = True
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._is_kicked:
                self._is_kicked = False
                await self._send_all()
        except ButterbaseError as error:
            logger.warning("the outbox of %s waits: %s", self._app_id, error)
            self._kick_in(PAUSE_S_MAX / 60)
        except Exception:
            logger.exception("the outbox of %s has stopped", self._app_id)
            self._kick_in(PAUSE_S_MAX)
        finally:
            self._task = None

    async def _send_all(self) -> None:
        mailer = self._mailer(await self._config())
        if mailer is None:
            return
        while claimed := await self._claim():
            async with asyncio.TaskGroup() as sending:
                for mail in claimed:
                    sending.create_task(self._try_send(mailer, *mail))
        (_, due) = await self._service.run(
            Statement.of(QUERIES["purge"], KEPT_S), Statement(QUERIES["next_due"])
        )
        if (next_due_s := due.value()) is not None:
            self._kick_in(max(0.0, float(next_due_s) - self._clock()))

    async def _claim(self) -> list[tuple[int, str, bytes, int, float]]:
        """Id, recipient, sealed letter, which try this is, age in seconds."""
        (result,) = await self._service.run(
            Statement.of(QUERIES["claim_mails"], self._clock(), LEASE_S, CLAIMED_COUNT_MAX)
        )
        return [
            (
                int(id_ or 0),
                (recipient or b"").decode(),
                bytes.fromhex((sealed or b"").decode()),
                int(attempts or 0),
                float(age_s or 0),
            )
            for id_, recipient, sealed, attempts, age_s in result.rows()
        ]

    async def _try_send(
        self, mailer: Mailer, id_: int, recipient: str, sealed: bytes, attempts: int, age_s: float
    ) -> None:
        """What happens to one mail ends no other: it is left to its lease."""
        try:
            await self._send(mailer, id_, recipient, sealed, attempts, age_s)
        except ButterbaseError as error:
            logger.warning("mail %s of %s waits: %s", id_, self._app_id, error)
        except Exception:
            logger.exception("mail %s of %s waits", id_, self._app_id)

    async def _send(
        self, mailer: Mailer, id_: int, recipient: str, sealed: bytes, attempts: int, age_s: float
    ) -> None:
        try:
            if age_s > AGE_S_MAX:
                raise MailRefusedError("it could not be sent for too long")
            letter = self.open(sealed)
            async with asyncio.timeout(SENDING_S_MAX):
                await mailer.send(Mail(f"{self._app_id}.{id_}", recipient, letter))
        except (MailRefusedError, SettingError) as error:
            await self._mark("mark_given_up", id_, str(error))
            logger.warning("mail %s of %s is given up: %s", id_, self._app_id, error)
        except (MailUnavailableError, TimeoutError) as error:
            text = str(error) or "the mail server does not answer"
            pause_s = pause_after(attempts)
            logger.warning("mail %s of %s was not taken: %s", id_, self._app_id, text)
            await self._mark("mark_postponed", id_, self._clock() + pause_s, text)
        else:
            await self._mark("mark_sent", id_, self._clock())

    async def _mark(self, query: str, id_: int, *values: Value) -> None:
        await self._service.run(Statement.of(QUERIES[query], id_, *values))

    def _kick_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(seconds, self.kick)


def pause_after(attempts: int) -> float:
    """Seconds between a failed try, the `attempts`th, and the next."""
    return min(PAUSE_S_MAX, PAUSE_S_MIN * 2.0 ** min(attempts - 1, 20))
