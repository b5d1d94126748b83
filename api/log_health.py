"""How the logs are read: what Postgres says of slots, and stream processes of themselves."""

from typing import Final

import msgspec
from msgspec import Struct

from butterbase.projections.status import LogStatus, StreamStatus
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement

_LOGS: Final = Statement(load_queries("health")["logs"])


class Slot(Struct, frozen=True):
    """Of a database whose log is to be read. Where the slot is missing there is but its name."""

    database: str
    active: bool
    wal_status: str | None
    """`reserved`, `extended`, `unreserved` or `lost`: the `pg_replication_slots` view has more."""
    safe_wal_bytes: int | None
    """What may be written until the slot is in danger; None without max_slot_wal_keep_size."""
    retained_bytes: int | None
    unacknowledged_bytes: int | None


class SeenStream(Struct, frozen=True):
    id: str
    age_s: float
    """Since it told its status."""
    wal_lsn: int
    """The server's, when it told."""
    status: StreamStatus


class LogHealth(Struct, frozen=True):
    slots: list[Slot]
    streams: list[SeenStream]
    """Seen last, first."""

    def leader(self, age_s_max: float) -> SeenStream | None:
        """Who reads the logs; None where it was not seen for so long."""
        leading = (s for s in self.streams if s.status.is_leading and s.age_s <= age_s_max)
        return next(leading, None)


_HEALTH: Final = msgspec.json.Decoder(LogHealth)


async def read_log_health(control: Executor) -> LogHealth:
    """Raises DatabaseError, DatabaseUnavailableError."""
    (result,) = await control.run(_LOGS)
    text = result.value()
    assert text is not None
    return _HEALTH.decode(text)


def log_of(stream: SeenStream | None, database: str) -> LogStatus | None:
    logs = () if stream is None else stream.status.logs
    return next((log for log in logs if log.database == database), None)


def lag_bytes(stream: SeenStream, log: LogStatus) -> int:
    """What was in the server's log and not delivered, when the process told its status."""
    return max(0, stream.wal_lsn - log.delivered)
