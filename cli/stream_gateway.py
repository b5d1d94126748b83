"""The gateway in the stream process: indexes with models of the app's are embedded through it.

It stands in the books as a worker of its own. What an index calls is not a request of anybody's:
texts are not kept, whatever the app keeps of its users' calls, and no trace is begun.
"""

import asyncio
from contextlib import suppress

from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.config.configs import AiConfigs
from butterbase.ai.money.ledger import Ledger
from butterbase.ai.seams import Seams
from butterbase.ai.telemetry.call_log import CallLog
from butterbase.cli.settings import Settings
from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor

CONNECTION_COUNT_MAX = 4
"""To the control database."""


class StreamGateway:
    """Opened when it is first needed: most installations embed with a model of their own."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._opened: _Opened | None = None

    def get(self) -> Gateway:
        """Raises SettingError."""
        if self._opened is None:
            self._opened = _Opened(self._cluster, self._settings)
        return self._opened.gateway

    async def close(self) -> None:
        """Wait until the calls that ran are recorded."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()


class _Opened:
    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._control = Executor(
            cluster.dsn(LoginRole.SERVICE, cluster.control_database),
            connection_count_max=CONNECTION_COUNT_MAX,
        )
        ai = settings.ai
        self._ledger = Ledger(self._control, default_plan=ai.ai_default_plan)
        seams = Seams(observers=(CallLog(),) if ai.ai_log_calls else ())
        configs = AiConfigs(self._control, cluster.master_key, ai, seams=seams)
        self.gateway = Gateway(ai, configs, self._ledger, seams=seams)
        # While it says that it lives, its calls are not taken for lost.
        self._living = asyncio.create_task(self._ledger.run())

    async def close(self) -> None:
        await self.gateway.close()
        with suppress(ButterbaseError):  # they are in the log
            await self._ledger.write_waiting()
        self._living.cancel()
        await asyncio.wait({self._living})
        await self._control.close()
