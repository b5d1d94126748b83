"""How much of each part a query string may have: what one of 64 KiB could have is too much.

Without these, a request of that length would keep its worker reading for seconds, and Postgres
planning with gigabytes.
"""

from butterbase.api.rest.errors import QueryStringError

NESTING_MAX = 50
"""Of embedded relations, and of logic: what stays far from Python's own limit."""

SELECTED_COUNT_MAX = 2000
"""Of columns and relations in `select`, on all levels. One level of Postgres's has up to 1,664."""

EMBEDDED_COUNT_MAX = 100
"""Of relations in `select`: the cost of planning grows with the square of their number."""

ORDER_COUNT_MAX = 1000
"""Of terms in one `order`."""

JSON_STEP_COUNT_MAX = 100
"""Of arrows behind one column."""


class Tally:
    """What there was up to here, of something that may not be without end."""

    def __init__(self, what: str, count_max: int) -> None:
        self._what = what
        self._count_max = count_max
        self._count = 0

    def add(self) -> None:
        """Raises QueryStringError."""
        self._count += 1
        if self._count > self._count_max:
            raise QueryStringError(f"The query string has more than {self._count_max} {self._what}")


class Selected:
    """What a `select` has up to here."""

    def __init__(self) -> None:
        self.items = Tally("columns and relations in its select", SELECTED_COUNT_MAX)
        self.relations = Tally("embedded relations", EMBEDDED_COUNT_MAX)


def order_terms() -> Tally:
    return Tally("terms in an order", ORDER_COUNT_MAX)


def json_steps() -> Tally:
    return Tally("steps in a JSON path", JSON_STEP_COUNT_MAX)


def check_depth(depth: int) -> None:
    """Raises QueryStringError."""
    if depth > NESTING_MAX:
        raise QueryStringError(f"The query string nests deeper than {NESTING_MAX} levels")
