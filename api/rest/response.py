"""A plan's answer → status, headers and body, as PostgREST words them. Pure."""

import re
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
from butterbase.api.rest.plan.model import CALLS, READS, Action, Plan
from butterbase.api.rest.request.media import content_type
from butterbase.api.rest.request.preferences import Preferences, applied
from butterbase.api.rest.request.ranges import content_range, range_status
from butterbase.api.rest.request.syntax import Range
from butterbase.sql.spool import Spool

Header: TypeAlias = tuple[bytes, bytes]

VARY = (b"vary", b"Accept, Prefer, Range")

_GUC_HEADERS = msgspec.json.Decoder(list[dict[str, str]])
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_END = re.compile(r"[\r\n\0]")
_TEXTS = msgspec.json.Decoder(list[str | None])


class Outcome(Struct, frozen=True):
    """The row that a statement of `statements.py` answers."""

    body: bytes | Spool
    row_count: int
    total_count: int | None = None
    headers: bytes | None = None
    """What the database set as `response.headers`."""
    status: bytes | None = None
    location: bytes | None = None
    """A JSON array of the primary key's values as text."""
    inserted_count: int | None = None


class Answer(Struct, frozen=True):
    status: int
    headers: list[Header]
    body: bytes | Spool


class Asked(Struct, frozen=True):
    """What of a request its answer repeats."""

    name: str
    canonical: str
    range: Range
    profile: str | None
    """The schema, where one of several was chosen."""


def check(plan: Plan, outcome: Outcome) -> None:
    """Raises NotSingularError, MaxAffectedError, PutKeyError: nothing of it is to be kept."""
    count = outcome.row_count
    if plan.action is Action.PUT and count != 1:
        raise PutKeyError
    if plan.is_singular and count != 1:
        raise NotSingularError(details=f"The result contains {count} rows")
    preferences = plan.preferences
    if preferences.max_affected is not None and preferences.handling == "strict":
        limited = plan.action in CALLS or plan.action in (Action.UPDATE, Action.DELETE)
        if limited and count > preferences.max_affected:
            raise MaxAffectedError(details=f"The query affects {count} rows")


def respond(plan: Plan, outcome: Outcome, asked: Asked) -> Answer:
    """Raises ResponseHeadersError, ResponseStatusError, InvalidRangeError."""
    if plan.action in READS or plan.action is Action.CALL:
        status, headers = _read(plan, outcome, asked)
    else:
        status, headers = _changed(plan, outcome, asked)
    has_body = _has_body(plan)
    if has_body or plan.action in READS:
        headers += _media_headers(plan, asked)
    preference = applied(_heard(plan))
    if preference:
        headers.append((b"preference-applied", preference.encode()))
    status, headers = _overridden(status, [*headers, VARY], outcome)
    return Answer(status, headers, outcome.body if has_body else b"")


def explained(plan: Plan, text: bytes, asked: Asked) -> Answer:
    """The answer to a request for its query plan."""
    return Answer(200, [*_media_headers(plan, asked), VARY], text)


def _media_headers(plan: Plan, asked: Asked) -> list[Header]:
    headers = [(b"content-type", content_type(plan.media).encode())]
    if asked.profile is not None:
        headers.append((b"content-profile", asked.profile.encode()))
    return headers


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
    if plan.action is Action.READ:
        location = "/" + asked.name + ("?" + asked.canonical if asked.canonical else "")
        headers.append((b"content-location", location.encode()))
    if plan.routine is not None and plan.routine.returns_void:
        status = 204
    return status, headers


def _changed(plan: Plan, outcome: Outcome, asked: Asked) -> tuple[int, list[Header]]:
    answers_rows = plan.preferences.representation == "representation"
    status = 200 if answers_rows else 204
    if plan.action is Action.PUT:
        if answers_rows and (outcome.inserted_count or 0) > 0:
            status = 201
        return status, []
    total = outcome.row_count if plan.preferences.count in ("exact", "estimated") else None
    first, last = (0, outcome.row_count - 1) if plan.action is Action.UPDATE else (1, 0)
    headers = [(b"content-range", content_range(first, last, total).encode())]
    if plan.action is Action.INSERT:
        merges = plan.preferences.resolution == "merge-duplicates"
        status = 200 if merges and (outcome.inserted_count or 0) <= 0 else 201
        if outcome.location is not None and plan.table is not None:
            headers.append((b"location", _location(plan, outcome.location, asked)))
    return status, headers


def _location(plan: Plan, values: bytes, asked: Asked) -> bytes:
    assert plan.table is not None
    pairs = zip(plan.table.primary_key, _TEXTS.decode(values), strict=True)
    query = "&".join(
        f"{quote(key, safe='')}=" + ("is.null" if value is None else f"eq.{quote(value, safe='')}")
        for key, value in pairs
    )
    return f"/{asked.name}?{query}".encode()


def _has_body(plan: Plan) -> bool:
    if plan.action in READS or plan.action is Action.CALL:
        return not (plan.routine is not None and plan.routine.returns_void)
    return plan.preferences.representation == "representation"


def _heard(plan: Plan) -> Preferences:
    """The preferences that had a meaning for this request."""
    changes = plan.action not in READS and plan.action not in CALLS
    given = plan.preferences
    is_insert = plan.action is Action.INSERT
    limits = plan.action in CALLS or plan.action in (Action.UPDATE, Action.DELETE)
    return msgspec.structs.replace(
        given,
        resolution=given.resolution if is_insert and plan.has_conflict_target else None,
        representation=given.representation if changes else None,
        missing=given.missing if is_insert or plan.action is Action.UPDATE else None,
        max_affected=given.max_affected if limits else None,
    )


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
        added = [_header(header) for header in given]
        names = {name for name, _ in added}
        headers = [(n, v) for n, v in headers if n not in names] + added
    return status, headers


def _header(given: dict[str, str]) -> Header:
    """Raises ResponseHeadersError, for what would end the header or begin another as well."""
    if len(given) != 1:
        raise ResponseHeadersError
    ((name, value),) = given.items()
    if not _HEADER_NAME.fullmatch(name) or _LINE_END.search(value):
        raise ResponseHeadersError
    return name.lower().encode(), value.encode()
