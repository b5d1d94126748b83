"""The session of a replication connection: how it is opened, and what its results mean."""

from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.ingest.errors import ReplicationError, SlotError
from butterbase.ingest.settings import ConsumerSettings
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseUnavailableError,
    SettingError,
    is_unavailable,
)

UNDEFINED_OBJECT: Final = "42704"
OBJECT_NOT_IN_PREREQUISITE_STATE: Final = "55000"

# The texts of columns depend on these; ingest/values.py counts on them.
TEXT_SETTINGS: Final = {
    "datestyle": "ISO",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
}


# A reader whose host is gone must not hold its lock for long. (One that is alive but busy answers
# these in its kernel.)
_KEEPALIVES: Final = {
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
}


def replication_dsn(dsn: str, settings: ConsumerSettings) -> str:
    """The DSN with what a replication connection of ours adds. Raises SettingError."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise SettingError("the DSN of the log cannot be read") from error
    session = (
        TEXT_SETTINGS
        | _KEEPALIVES
        | {"wal_sender_timeout": f"{settings.sender_timeout_s * 1000:.0f}"}
    )
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    return make_conninfo(
        dsn,
        application_name=given.get("application_name") or "butterbase stream",
        replication="database",
        client_encoding="utf8",
        connect_timeout=settings.connect_timeout_s,
        # Ours last: they win.
        options=f"{given.get('options') or ''} {options}".strip(),
    )


def refusal(slot: str, result: pq.abc.PGresult | None) -> ButterbaseError:
    """Why START_REPLICATION failed. A slot that is in use may be free at the next attempt."""
    if result is None:
        return ReplicationError(f"slot {slot}: START_REPLICATION was not answered")
    sqlstate = _sqlstate(result)
    message = f"slot {slot}: {_text(result)}"
    if sqlstate in (UNDEFINED_OBJECT, OBJECT_NOT_IN_PREREQUISITE_STATE):
        return SlotError(
            message,
            hint="Set the slot up again; if it was invalidated, drop it first and rebuild the"
            " projections: the changes it had not read are gone.",
        )
    return failure(result)


def failure(result: pq.abc.PGresult) -> ButterbaseError:
    if is_unavailable(_sqlstate(result)):
        return DatabaseUnavailableError(_text(result))
    return ReplicationError(_text(result))


def _sqlstate(result: pq.abc.PGresult) -> str:
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()


def _text(result: pq.abc.PGresult) -> str:
    return result.get_error_message() or f"unexpected status {result.status}"
