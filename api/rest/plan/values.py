"""A request's values, in the order that a plan's recipe takes them from (sql/parameters.py)."""

from butterbase.api.rest.plan.model import Plan
from butterbase.api.rest.request.incoming import Incoming
from butterbase.api.rest.request.syntax import Range
from butterbase.sql.filters import array_literal


def values_of(incoming: Incoming, plan: Plan) -> list[bytes | None]:
    """Filter values, a limit and an offset for each range, the body, a function's arguments."""
    row: list[bytes | None] = [value.encode() for value in incoming.query.values]
    row += _page(incoming.range, plan.row_count_max)
    for path, page in incoming.query.ranges:
        if path:
            row += _page(page, plan.row_count_max)
    row.append(_body(incoming))
    if plan.arguments:
        given = incoming.arguments
        for argument in plan.arguments:
            texts = [given[place][1] for place in argument.places]
            row.append((array_literal(texts) if argument.is_list else texts[0]).encode())
    return row


def _body(incoming: Incoming) -> bytes | None:
    if incoming.payload is None:
        return None
    if incoming.request.content_type == "application/octet-stream":
        return b"\\x" + incoming.payload.parameter.hex().encode()  # bytea, in its text format
    return incoming.payload.parameter


def _page(page: Range, row_count_max: int | None) -> tuple[bytes | None, bytes]:
    limit = page.limit
    if row_count_max is not None:
        limit = row_count_max if limit is None else min(limit, row_count_max)
    return None if limit is None else b"%d" % limit, b"%d" % page.first
