"""A plan's answer → status, headers and body, as PostgREST words them. Pure."""

from typing import TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Struct

from butterbase.api.rest.errors import (
    InvalidRangeError,
    MaxAffectedError,
    NotSingularError,
    PutKeyError,
    ResponseHeadersError,
    ResponseStatusError,
)
from butterbase.api.rest.header_fields import fields_of_sql, is_value
from butterbase.api.rest.plan.model import Plan
from butterbase.api.rest.request.model import CALLS, READS
from butterbase.api.rest.request.ranges import content_range, range_status
from butterbase.api.rest.request.syntax import Range
from butterbase.sql.spool import Spool

Header: TypeAlias = tuple[bytes, bytes]

_GUC_HEADERS = msgspec.json.Decoder(list[dict[str, str]])
_TEXTS = msgspec.json.Decoder(list[str | None])


class Outcome(Struct, frozen=True):
    """The row that a statement of `sql/statement.py` answers."""

    body: bytes | Spool
    row_count: int
    total_count: int | None = None
    headers: bytes | None = None
    """What the database set as `response.headers`."""
    status: bytes | None = None
    location: bytes | None = None
    """A JSON array of the primary key's values as text."""
    inserted_count: int | None = None
    position: bytes | None = None
    """Where changes go on from what was read."""


class Answer(Struct, frozen=True):
    status: int
    headers: list[Header]
    body: bytes | Spool


class Asked(Struct, frozen=True):
    """What of a request its answer repeats."""

    canonical: str
    range: Range
    profile: str | None
    """The schema, where one of several was chosen."""


def check(plan: Plan, outcome: Outcome) -> None:
    """Raises NotSingularError, MaxAffectedError, PutKeyError: nothing of it is to be kept."""
    count = outcome.row_count
    if plan.action == "put" and count != 1:
        raise PutKeyError
    if plan.is_singular and count != 1:
        raise NotSingularError(details=f"The result contains {count} rows")
    preferences = plan.preferences
    if preferences.max_affected is not None and preferences.handling == "strict":
        limited = plan.action in CALLS or plan.action in ("update", "delete")
        if limited and count > preferences.max_affected:
            raise MaxAffectedError(details=f"The query affects {count} rows")


def respond(plan: Plan, outcome: Outcome, asked: Asked) -> Answer:
    """Raises ResponseHeadersError, ResponseStatusError, InvalidRangeError."""
    if plan.action in READS or plan.action == "call":
        status, headers = _read(plan, outcome, asked)
    else:
        status, headers = _changed(plan, outcome)
    headers += plan.headers
    if plan.has_body and asked.profile is not None:
        headers.append((b"content-profile", asked.profile.encode()))
    if outcome.status is not None or outcome.headers is not None:
        status, headers = _overridden(status, headers, outcome)
    return Answer(status, headers, outcome.body if plan.has_body else b"")


def explained(plan: Plan, text: bytes, asked: Asked) -> Answer:
    """The answer to a request for its query plan."""
    headers = list(plan.headers)
    if asked.profile is not None:
        headers.append((b"content-profile", asked.profile.encode()))
    return Answer(200, headers, text)


def _read(plan: Plan, outcome: Outcome, asked: Asked) -> tuple[int, list[Header]]:
    first = asked.range.first
    last = first + outcome.row_count - 1
    status = range_status(first, last, outcome.total_count)
    numbers = content_range(first, last, outcome.total_count)
    if status == 416:
        raise InvalidRangeError(
            details=f"An offset of {first} was requested, "
            f"but there are only {outcome.total_count or 0} rows.",
            headers=[(b"content-range", numbers.encode())],
        )
    headers = [(b"content-range", numbers.encode())]
    if plan.action == "read":
        query = b"?" + asked.canonical.encode() if asked.canonical else b""
        headers.append((b"content-location", plan.location + query))
    if outcome.position is not None:
        headers.append((b"butterbase-position", outcome.position))
    if plan.routine is not None and plan.routine.returns_void:
        status = 204
    return status, headers


def _changed(plan: Plan, outcome: Outcome) -> tuple[int, list[Header]]:
    answers_rows = plan.has_body
    status = 200 if answers_rows else 204
    if plan.action == "put":
        if answers_rows and (outcome.inserted_count or 0) > 0:
            status = 201
        return status, []
    total = outcome.row_count if plan.preferences.count in ("exact", "estimated") else None
    first, last = (0, outcome.row_count - 1) if plan.action == "update" else (1, 0)
    headers = [(b"content-range", content_range(first, last, total).encode())]
    if plan.action == "insert":
        merges = plan.preferences.resolution == "merge-duplicates"
        status = 200 if merges and (outcome.inserted_count or 0) <= 0 else 201
        if outcome.location is not None:
            headers.append((b"location", _location(plan, outcome.location)))
    return status, headers


def _location(plan: Plan, values: bytes) -> bytes:
    pairs = zip(plan.key, _TEXTS.decode(values), strict=True)
    query = "&".join(
        f"{quote(key, safe='')}=" + ("is.null" if value is None else f"eq.{quote(value, safe='')}")
        for key, value in pairs
    )
    return plan.location + b"?" + query.encode()


def _overridden(status: int, headers: list[Header], outcome: Outcome) -> tuple[int, list[Header]]:
    """What the database said last: `response.status` and `response.headers`."""
    if outcome.status is not None:
        if not outcome.status.isdigit() or len(outcome.status) != 3:
            raise ResponseStatusError
        status = int(outcome.status)
    if outcome.headers is not None:
        try:
            given = _GUC_HEADERS.decode(outcome.headers)
        except msgspec.DecodeError as error:
            raise ResponseHeadersError from error
        added = [field for header in given for field in _fields(header)]
        names = {name for name, _ in added}
        headers = [(n, v) for n, v in headers if n not in names] + added
    return status, headers


def _fields(given: dict[str, str]) -> list[Header]:
    """None where the header is the server's own. Raises ResponseHeadersError."""
    if len(given) != 1 or not all(map(is_value, given.values())):
        raise ResponseHeadersError
    try:
        return fields_of_sql(given)
    except ValueError as error:
        raise ResponseHeadersError from error
