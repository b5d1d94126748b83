"""Errors that SQL raises in order to answer with a status and headers of its own. Pure.

https://docs.postgrest.org/en/stable/references/errors.html#raise-errors-with-http-status-codes
"""

import msgspec
from msgspec import Struct

from butterbase.api.rest.errors import RaisedResponseError, RestError
from butterbase.api.rest.header_fields import fields_of_sql
from butterbase.sql.errors import DatabaseError

STATUS_MIN, STATUS_MAX = 200, 599

_DETAIL_HINT = (
    "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key:"
    " 'status_text'."
)
_MESSAGE_HINT = (
    "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys:"
    " 'details', 'hint'."
)


class RaisedError(RestError):
    """An error with the status that SQL gave it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: str | None = None,
        hint: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        super().__init__(message, details=details, hint=hint, headers=headers or ())
        self.message = message
        self.status = status if STATUS_MIN <= status <= STATUS_MAX else 500  # type: ignore[misc]
        self.code = code  # type: ignore[misc]


class _Message(Struct):
    code: str
    message: str
    details: str | None = None
    hint: str | None = None


class _Detail(Struct):
    status: int
    headers: dict[str, str]
    status_text: str | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_DETAIL = msgspec.json.Decoder(_Detail)


def raised_error(error: DatabaseError) -> RestError | None:
    """What `PTxyz` and `PGRST` mean; None for every other SQLSTATE."""
    if error.sqlstate == "PGRST":
        return _raised(error)
    if error.sqlstate.startswith("PT"):
        digits = error.sqlstate[2:]
        return RaisedError(
            int(digits) if digits.isdecimal() else 500,
            error.sqlstate,
            error.message,
            details=error.detail,
            hint=error.hint,
        )
    return None


def _raised(error: DatabaseError) -> RestError:
    try:
        message = _MESSAGE.decode(error.message)
    except msgspec.DecodeError:
        details = f"Invalid JSON value for MESSAGE: '{error.message}'"
        return RaisedResponseError(details=details, hint=_MESSAGE_HINT)
    if error.detail is None:
        details = "DETAIL is missing in the RAISE statement"
        return RaisedResponseError(details=details, hint=_DETAIL_HINT)
    try:
        detail = _DETAIL.decode(error.detail)
        headers = fields_of_sql(detail.headers)
    except (msgspec.DecodeError, ValueError):
        details = f"Invalid JSON value for DETAIL: '{error.detail}'"
        return RaisedResponseError(details=details, hint=_DETAIL_HINT)
    return RaisedError(
        detail.status,
        message.code,
        message.message,
        details=message.details,
        hint=message.hint,
        headers=headers,
    )
