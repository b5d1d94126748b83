"""The versions that are active, as the process that runs functions keeps them.

A deployment tells this process at once; what another machine's api deployed is found in seconds.
"""

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from butterbase.api.functions.errors import FunctionNotFoundError
from butterbase.api.functions.runtime.model import FunctionVersion, Limits, Permissions
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.store import variables_purpose
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement
from butterbase.sql.secrets import MasterKey

logger = logging.getLogger(__name__)

QUERIES: Final = load_queries("functions_work")

NOT_FLUSHED: Final = Statement(b"select set_config('synchronous_commit', 'off', true)")
"""Before what may be lost when the server crashes: a row that was claimed is claimed again."""

CPU_MS_MAX: Final = 30_000

_NAMES: Final = msgspec.json.Decoder(tuple[str, ...])
_TEXTS: Final = msgspec.json.Decoder(dict[str, str])


class LoadedVersion(FunctionVersion, frozen=True, kw_only=True):
    function_id: str
    service: bool
    """Whether it is granted the app's data."""


class Versions:
    """Of one app."""

    def __init__(
        self,
        app_id: str,
        executor: Executor,
        master_key: MasterKey,
        settings: FunctionsSettings,
        *,
        environment: dict[str, str],
        on_change: Callable[[str, str | None], None],
    ) -> None:
        """`environment` is what every function of the app finds; `on_change` gets the name and the
        revision of a function that is another by now, None when it is gone.
        """
        self._app_id = app_id
        self._executor = executor
        self._master_key = master_key
        self._settings = settings
        self._environment = environment
        self._on_change = on_change
        self._known: dict[str, LoadedVersion] = {}
        self._loading: dict[str, asyncio.Task[LoadedVersion]] = {}

    async def get(self, name: str) -> LoadedVersion:
        """Without IO where it is known. Raises FunctionNotFoundError, DatabaseUnavailableError."""
        known = self._known.get(name)
        if known is not None:
            return known
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(self._load(name))
            loading.add_done_callback(lambda task: self._settle(name, task))
        return await asyncio.shield(loading)

    def changed(self, name: str) -> None:
        """It was deployed, or is gone: it is read anew, before it is asked for."""
        self._known.pop(name, None)
        # What is being read may be of before.
        self._loading.pop(name, None)
        task = asyncio.create_task(self.get(name))
        task.add_done_callback(lambda done: self._told(name, done))

    async def refresh(self) -> None:
        """Look whether any that is known is another by now. Raises DatabaseUnavailableError."""
        if not self._known:
            return
        (result,) = await self._executor.run(Statement(QUERIES["revisions"]))
        revisions = _TEXTS.decode(result.value() or b"{}")
        for name, known in list(self._known.items()):
            if revisions.get(name) != known.revision:
                self.changed(name)

    async def close(self) -> None:
        loading = list(self._loading.values())
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    def _settle(self, name: str, task: "asyncio.Task[LoadedVersion]") -> None:
        if self._loading.get(name) is not task:
            return
        del self._loading[name]
        if not task.cancelled() and task.exception() is None:
            self._known[name] = task.result()

    def _told(self, name: str, task: "asyncio.Task[LoadedVersion]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if name in self._loading:
            return  # it has changed again, of which that will tell
        known = self._known.get(name)
        if error is None:
            if known is task.result():  # not an older one, which came later
                self._on_change(name, known.revision)
        elif isinstance(error, FunctionNotFoundError):
            if known is None:
                self._on_change(name, None)
        else:  # it is asked for again by the next call
            logger.warning("function %s/%s cannot be read: %s", self._app_id, name, error)

    async def _load(self, name: str) -> LoadedVersion:
        (result,) = await self._executor.run(Statement.of(QUERIES["load"], name))
        if result.row_count == 0:
            raise FunctionNotFoundError(f"there is no function {name[:100]!r}")
        row = [value or b"" for value in result.rows()[0]]
        function_id, revision, version_id, bundle, source_map = row[:5]
        timeout_ms, memory_mb, net, service, variables = row[5:]
        wall_ms = min(int(timeout_ms), self._settings.functions_wall_ms_max)
        return LoadedVersion(
            app_id=self._app_id,
            name=name,
            revision=revision.decode(),
            version_id=version_id.decode(),
            bundle=bundle,
            source_map=source_map or None,
            env=self._opened(variables) | self._environment,
            permissions=Permissions(_NAMES.decode(net)),
            limits=Limits(
                wall_ms=wall_ms, cpu_ms=min(wall_ms, CPU_MS_MAX), memory_mb=int(memory_mb)
            ),
            function_id=function_id.decode(),
            service=service == b"t",
        )

    def _opened(self, sealed: bytes) -> dict[str, str]:
        purpose = variables_purpose(self._app_id)
        return {
            name: self._master_key.open(base64.b64decode(value), purpose=purpose).decode()
            for name, value in _TEXTS.decode(sealed).items()
        }
