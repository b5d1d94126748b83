"""`/metrics`: the logs, their readers, the sockets and calls to models, for Prometheus.

What is told names apps, so it is for the service key of the app main and for operators. All of it
is read from the control database, so each worker of the api tells the same.
"""

from falcon.asgi import Request, Response

from butterbase.api.errors import MetricsRefusedError
from butterbase.api.log_health import read_log_health
from butterbase.api.metrics.calls import call_families, read_call_metrics
from butterbase.api.metrics.exposition import CONTENT_TYPE, render
from butterbase.api.metrics.logs import log_families
from butterbase.api.settings import ApiSettings
from butterbase.sql.claims import SERVICE_ROLE
from butterbase.sql.pipeline import Executor


class MetricsResource:
    def __init__(self, control: Executor, settings: ApiSettings) -> None:
        self._control = control
        self._settings = settings

    async def on_get(self, req: Request, resp: Response) -> None:
        if req.context.claims.role != SERVICE_ROLE:
            raise MetricsRefusedError
        resp.content_type = CONTENT_TYPE
        health = await read_log_health(self._control)
        calls = await read_call_metrics(self._control)
        logs = log_families(health, away_s_max=self._settings.ready_away_s_max)
        resp.data = render([*logs, *call_families(calls)])
