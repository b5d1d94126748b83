"""What a request is, but for its values, and the plan that is made of it and kept. Values alone."""

from enum import Enum

from msgspec import Struct

from butterbase.api.rest.plan.negotiation import OBJECT
from butterbase.api.rest.request.media import MediaType
from butterbase.api.rest.request.preferences import Preferences
from butterbase.api.rest.sql.handlers import Handler
from butterbase.api.rest.sql.nodes import Node
from butterbase.api.rest.sql.statement import Text
from butterbase.sql.relations.model import Routine, Table, Volatility


class Action(Enum):
    READ = "read"
    INSERT = "insert"
    UPDATE = "update"
    PUT = "put"
    DELETE = "delete"
    CALL = "call"
    """A function, by POST."""
    CALL_READ = "call_read"
    """A function, by GET or HEAD: its arguments are in the query string."""


READS = frozenset({Action.READ, Action.CALL_READ})
CALLS = frozenset({Action.CALL, Action.CALL_READ})


class Request(Struct, frozen=True):
    """All that a plan depends on, so that it is the key of the plan cache."""

    action: Action
    schema: str
    name: str
    outline: tuple[object, ...]
    value_count: int
    range_count: int
    has_root_range: bool = False
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


class Argument(Struct, frozen=True):
    """One of a call's parameters, and which of the request's arguments it takes."""

    places: tuple[int, ...]
    is_list: bool = False


class Plan(Struct, frozen=True):
    action: Action
    main: Text
    recipe: tuple[int, ...]
    handler: Handler
    media: MediaType
    preferences: Preferences
    node: Node
    table: Table | None = None
    routine: Routine | None = None
    planned_count: tuple[bytes, tuple[int, ...]] | None = None
    """A second statement, which asks what the planner expects, and its recipe."""
    exact_count_max: int = 0
    row_count_max: int | None = None
    """The server's, on each level that is read."""
    is_explained: bool = False
    has_conflict_target: bool = False
    arguments: tuple[Argument, ...] = ()
    legacy_names: tuple[tuple[str, str], ...] = ()

    @property
    def is_read_only(self) -> bool:
        if self.routine is not None:
            return (
                self.action is Action.CALL_READ
                or self.routine.volatility is not Volatility.VOLATILE
            )
        return self.action is Action.READ

    @property
    def is_checked(self) -> bool:
        """Whether the row count decides over commit or rollback."""
        return (
            not self.is_read_only
            and not self.is_explained
            and (
                self.action is Action.PUT
                or self.is_singular
                or self.preferences.max_affected is not None
            )
        )

    @property
    def is_singular(self) -> bool:
        return self.media.name == OBJECT
