"""Which rows are asked for, by `limit`, `offset` and `Range`, and how the answer tells it. Pure.

https://docs.postgrest.org/en/stable/references/api/pagination_count.html
"""

import re

from butterbase.api.rest.errors import InvalidRangeError
from butterbase.api.rest.request.syntax import Path, Range

ALL = Range()
NONE = Range(0, -1)
"""What `limit=0` asks for, which is allowed."""

ROW_COUNT_MAX = 2**63 - 1
"""As Postgres counts rows; what is above is cut down to it."""

_DIGITS_MAX = 1000
_NUMBER = re.compile(r"\s*(-?)\s*([0-9]+)\s*", re.ASCII)
_HEADER = re.compile(r"([0-9]+)-([0-9]*)")


def range_of(limit: str | None = None, offset: str | None = None) -> Range:
    """Of a level; a text that is no number says nothing. May be empty, or end before row zero."""
    count, first = _number(limit), _number(offset)
    if offset is None or limit is None:
        return Range(first or 0, None if count is None else count - 1)
    first, count = first or 0, count or 0
    return Range(first, first + count - 1)


def requested_range(
    query_ranges: tuple[tuple[Path, Range], ...], range_header: str | None
) -> Range:
    """The rows of the root; the header is to be left out but for GET. Raises InvalidRangeError."""
    limited = next((range_ for path, range_ in query_ranges if not path), ALL)
    if limited.last == -1:
        return NONE
    if range_header is None:
        if limited is ALL:
            return ALL
        header = ALL
    else:
        header = _header_range(range_header)
    both = _intersection(header, limited)
    if not _is_empty(both):
        return both
    raise InvalidRangeError(
        details="The lower boundary must be lower than or equal to the upper boundary"
        " in the Range header."
        if _is_empty(header)
        else "Limit should be greater than or equal to zero."
    )


def content_range(first: int, last: int, total: int | None) -> str:
    """`0-9/200`, `*/0`, `0-9/*`: the rows answered with, both included, of how many."""
    rows = f"{first}-{last}" if total != 0 and first <= last else "*"
    return f"{rows}/{'*' if total is None else total}"


def range_status(first: int, last: int, total: int | None) -> int:
    """200 for all rows there are, or when nobody counted, 206 for some, 416 beyond the last."""
    if total is None:
        return 200
    if first > total:
        return 416
    return 206 if last - first + 1 < total else 200


def _number(text: str | None) -> int | None:
    match = _NUMBER.fullmatch(text or "")
    if not match:
        return None
    sign, digits = match.groups()
    size = min(int(digits), ROW_COUNT_MAX) if len(digits) <= _DIGITS_MAX else ROW_COUNT_MAX
    return -size if sign else size


def _header_range(text: str) -> Range:
    match = _HEADER.fullmatch(text)
    if not match:
        return ALL
    first, last = match.groups()
    return Range(_number(first) or 0, _number(last))


def _intersection(one: Range, other: Range) -> Range:
    """Of two ranges; that of an empty one is empty."""
    if _is_empty(other):
        return other
    ends = [range_.last for range_ in (one, other) if range_.last is not None]
    return Range(max(one.first, other.first), min(ends) if ends else None)


def _is_empty(range_: Range) -> bool:
    return range_.last is not None and range_.last < range_.first
