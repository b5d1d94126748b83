"""The root of every error Butterbase raises on purpose, and the database's faults as our classes.

ButterbaseError
├── DatabaseError             Postgres refused a statement: SQLSTATE, message, detail, hint
├── DatabaseUnavailableError  Postgres cannot be reached or is stopping; trying again is right
│   └── AcquisitionTimeoutError  all connections were in use for too long
├── SpoolFullError            large answers that nobody has taken yet have used up their room
├── InvalidTokenError         a key or token is not accepted
├── SettingError              a setting, file or server is not as it must be
├── MigrationError            a migration was changed, is missing, or failed
└── (each folder's errors.py continues the tree)

A class's docstring is its title; `code` is stable and never reused; docs/errors.md lists all.
"""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

T = TypeVar("T")


class ButterbaseError(Exception):
    """Something went wrong that Butterbase foresaw."""

    code: ClassVar[str] = "butterbase_error"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.hint = hint
        super().__init__(self.message)

    @property
    def public_message(self) -> str:
        """What clients are told."""
        return self.message


class DatabaseError(ButterbaseError):
    """Postgres refused the statement."""

    code = "database_error"

    def __init__(
        self, sqlstate: str, message: str, *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate
        self.detail = detail


class DatabaseUnavailableError(ButterbaseError):
    """The database cannot be reached right now."""

    code = "database_unavailable"

    @property
    def public_message(self) -> str:
        """Without the reason, where libpq names addresses and databases. The log has it."""
        return (type(self).__doc__ or "").splitlines()[0]


class AcquisitionTimeoutError(DatabaseUnavailableError):
    """Timed out acquiring connection from connection pool."""

    code = "PGRST003"  # PostgREST's, and its words, which clients match on


class SpoolFullError(ButterbaseError):
    """There is no room for another large answer right now."""

    code = "spool_full"


class InvalidTokenError(ButterbaseError):
    """The key or token is not valid."""

    code = "invalid_token"


class SettingError(ButterbaseError):
    """A setting is missing or wrong."""

    code = "setting_invalid"


class MigrationError(ButterbaseError):
    """The migrations and the database do not agree."""

    code = "migration_refused"


def nearest(table: Mapping[type, T], cls: type) -> T:
    """The entry of the class itself or of its nearest base. Raises KeyError."""
    for base in cls.__mro__:
        if base in table:
            return table[base]
    raise KeyError(cls)


# Classes of SQLSTATE that say the server or the connection went away, not that the statement is
# wrong: https://www.postgresql.org/docs/current/errcodes-appendix.html
UNAVAILABLE_SQLSTATES = frozenset({"57P01", "57P02", "57P03", "57P05", "53300"})


def is_unavailable(sqlstate: str) -> bool:
    """Whether the SQLSTATE means "try again later" (class 08, shutdown, too many connections)."""
    return sqlstate.startswith("08") or sqlstate in UNAVAILABLE_SQLSTATES
