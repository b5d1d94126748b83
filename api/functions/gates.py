"""What a worker of the api knows of functions that were called a moment ago."""

import time
from collections.abc import Callable

from butterbase.api.apps import AppRuntime
from butterbase.api.functions.errors import FunctionNotFoundError
from butterbase.api.functions.model import is_name
from butterbase.api.functions.store import Gate, read_gate

KEPT_S = 1.0
"""So long another worker's calls may pass by what was changed."""
_KEPT_COUNT_MAX = 10_000


class Gates:
    """Of all apps. A function that is not there is asked for again."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._kept: dict[tuple[str, str], tuple[float, Gate]] = {}
        self._forgotten_count = 0

    async def get(self, app: AppRuntime, name: str) -> Gate:
        """Raises FunctionNotFoundError, DatabaseUnavailableError."""
        kept = self._kept.get((app.id, name))
        if kept is not None and self._now_s() - kept[0] < KEPT_S:
            return kept[1]
        if not is_name(name):
            raise FunctionNotFoundError(f"there is no function {name[:100]!r}")
        read_at_s, forgotten_count = self._now_s(), self._forgotten_count
        gate = await read_gate(app.service, name)
        if forgotten_count != self._forgotten_count:
            return gate  # what was read may be of before
        if len(self._kept) >= _KEPT_COUNT_MAX:
            self._kept.clear()
        self._kept[app.id, name] = read_at_s, gate
        return gate

    def forget(self, app_id: str, name: str) -> None:
        self._kept.pop((app_id, name), None)
        self._forgotten_count += 1
