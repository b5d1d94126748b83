"""What is made of a request's shape, once, and kept."""

from msgspec import Struct

from butterbase.api.rest.request.media import MediaType
from butterbase.api.rest.request.model import CALLS, READS, Action
from butterbase.api.rest.request.preferences import Preferences
from butterbase.api.rest.sql.statement import Text
from butterbase.sql.relations.model import Routine


class Argument(Struct, frozen=True):
    """One of a call's parameters, and which of the request's arguments it takes."""

    places: tuple[int, ...]
    is_list: bool = False


class Plan(Struct, frozen=True):
    action: Action
    main: Text
    recipe: tuple[int, ...]
    media: MediaType | None
    """Of the body; None when a change answers none."""
    preferences: Preferences
    location: bytes = b""
    """The relation's path."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """That every answer of the plan has."""
    key: tuple[str, ...] = ()
    """The relation's primary key."""
    routine: Routine | None = None
    is_read_only: bool = False
    is_singular: bool = False
    """Whether there must be one row."""
    is_checked: bool = False
    """Whether the row count decides over commit or rollback."""
    is_explained: bool = False
    planned_count: tuple[bytes, tuple[int, ...]] | None = None
    """A second statement, which asks what the planner expects, and its recipe."""
    exact_count_max: int = 0
    row_count_max: int | None = None
    """The server's, on each level that is read."""
    arguments: tuple[Argument, ...] = ()

    @property
    def has_body(self) -> bool:
        if self.action in READS or self.action in CALLS:
            return self.routine is None or not self.routine.returns_void
        return self.media is not None
