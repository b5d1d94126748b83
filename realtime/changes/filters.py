"""An entry's `filter` as its terms, refused as realtime refuses: see sql/change_filters.py."""

from butterbase.realtime.errors import InvalidSubscriptionError
from butterbase.sql import change_filters
from butterbase.sql.change_filters import (
    ENDS_WITH_ESCAPE,
    OPERATORS,
    PATTERNS,
    SIGNS,
    WORDS,
    ChangeFilterError,
    Operator,
    Term,
    ends_with_escape,
)

__all__ = [
    "ENDS_WITH_ESCAPE",
    "OPERATORS",
    "PATTERNS",
    "SIGNS",
    "WORDS",
    "Operator",
    "Term",
    "ends_with_escape",
    "parse_filter",
]


def parse_filter(text: str) -> tuple[Term, ...]:
    """No terms where there is nothing but blanks. Raises InvalidSubscriptionError."""
    try:
        return change_filters.parse_filter(text)
    except ChangeFilterError as error:
        raise InvalidSubscriptionError(f"Error parsing `filter` params: {error}") from error
