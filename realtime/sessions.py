"""Whose session has ended: asked of Postgres when a token comes, and told by the log from then on.

An access token outlives its session by up to an hour; its sockets do not.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from butterbase.ingest.changes import Change, Delete
from butterbase.realtime.errors import SessionEndedError
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Executor, Statement

TABLE: Final = ("auth", "sessions")

KEPT_COUNT_MAX: Final = 10_000
"""Of those that ended lately: one may end between its check and its channel's registration."""

_IS_THERE: Final = b"select auth.has_session($1)"


class Sessions:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._ended: OrderedDict[str, None] = OrderedDict()

    async def check(self, claims: Claims) -> None:
        """Raises SessionEndedError, DatabaseUnavailableError. A key of the app has no session."""
        if claims.session_id is None:
            return
        (result,) = await self._executor.run_as(
            claims, Statement(_IS_THERE, (claims.session_id.encode(),)), read_only=True
        )
        if result.value() != b"t" or self.has_ended(claims):
            raise SessionEndedError

    def hear(self, changes: Iterable[Change]) -> set[str]:
        """The sessions that a commit has ended."""
        ended = {id_ for change in changes if (id_ := _ended(change)) is not None}
        for id_ in ended:
            self._ended[id_] = None
        while len(self._ended) > KEPT_COUNT_MAX:
            self._ended.popitem(last=False)
        return ended

    def has_ended(self, claims: Claims) -> bool:
        """As far as the log has told lately."""
        return claims.session_id in self._ended


def _ended(change: Change) -> str | None:
    """The id of a row that was deleted from `auth.sessions`."""
    if not isinstance(change, Delete) or change.relation.qualified_name != TABLE:
        return None
    for column, value in change.relation.pairs(change.old):
        if column.name == "id" and isinstance(value, str):
            return value
    return None
