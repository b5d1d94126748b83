"""What a request is, but for its values."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

Action: TypeAlias = Literal["read", "insert", "update", "put", "delete", "call", "call_read"]
"""`call` is a function by POST; `call_read` one by GET or HEAD, with its arguments in the query
string."""

READS: Final = frozenset[Action]({"read", "call_read"})
CALLS: Final = frozenset[Action]({"call", "call_read"})


LITERAL_LIMIT_MAX = 1000
"""A larger limit is a parameter, so that not every number makes a plan."""


class Page(Struct, frozen=True):
    """What of a level's limit and offset is part of the shape.

    With a limit that it does not know Postgres makes a plan anew for each request, which costs a
    list about half of its time; the usual limits are few.
    """

    limit: int | None = None
    """Where it stands in the statement."""
    has_limit: bool = False
    has_offset: bool = False


class Request(Struct, frozen=True):
    """All that a plan depends on, so that it is the key of the plan cache."""

    action: Action
    schema: str
    name: str
    outline: tuple[object, ...]
    value_count: int
    pages: tuple[Page, ...] = (Page(),)
    """The root's, then those of `Query.ranges` that are not the root's."""
    is_head: bool = False
    accept: str | None = None
    prefer: tuple[str, ...] = ()
    content_type: str | None = None
    """Of a body, its media type alone."""
    keys: tuple[str, ...] = ()
    """The body's members, sorted."""
    is_object: bool = True
    arguments: tuple[str, ...] = ()
    """Names of a call's arguments in the query string or in a form, in their order."""

    @property
    def length(self) -> int:
        """Characters that its client chose, but for the query string."""
        texts = (self.accept or "", self.name, *self.prefer, *self.keys, *self.arguments)
        return sum(map(len, texts))
