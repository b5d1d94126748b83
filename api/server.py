"""The api process: gunicorn's arbiter over uvicorn workers, one event loop each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from butterbase.api.handover import hand_over_to
from butterbase.api.http import HttpProtocol
from butterbase.api.intake import BODIES_BYTES_MAX, holding_at_most
from butterbase.api.settings import ApiSettings

KEEP_ALIVE_S = 75
GRACEFUL_STOP_S = 20
FINISH_S = 14
"""Of these, for requests to end by themselves. Then they are cancelled, and have the rest to tell
their clients and to be recorded: a worker that is killed does neither."""


class WorkerServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`build_app` is called in each worker, so that nothing with a socket crosses a fork."""

    def __init__(
        self,
        build_app: Callable[[], Any],
        *,
        name: str,
        addresses: Sequence[str],
        worker_count: int,
        websockets: type | None = None,
        bodies_bytes_max: int = BODIES_BYTES_MAX,
    ) -> None:
        self._build_app = build_app
        self._name = name
        self._addresses = list(addresses)
        self._worker_count = worker_count
        self._websockets = websockets
        self._http = holding_at_most(bodies_bytes_max, HttpProtocol)
        super().__init__()

    def load_config(self) -> None:
        websockets, http = self._websockets, self._http

        class ApiWorker(UvicornWorker):  # type: ignore[misc]  # nor has uvicorn_worker
            CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  as uvicorn_worker declares it
                "loop": "uvloop",
                "http": http,
                "ws": websockets or "none",
                "lifespan": "on",
                "server_header": False,
                "proxy_headers": False,  # api/auth/proxies.py, where it matters
                "timeout_graceful_shutdown": FINISH_S,
            }

        self.cfg.set("bind", self._addresses)
        self.cfg.set("workers", self._worker_count)
        self.cfg.set("worker_class", ApiWorker)
        self.cfg.set("keepalive", KEEP_ALIVE_S)
        self.cfg.set("graceful_timeout", GRACEFUL_STOP_S)
        self.cfg.set("loglevel", "warning")
        self.cfg.set("proc_name", self._name)
        self.cfg.set("control_socket_disable", True)  # it would lie in the user's home

    def load(self) -> Any:
        return self._build_app()


class ApiServer(WorkerServer):
    """The api of all apps; websockets go to the stream process."""

    def __init__(
        self, settings: ApiSettings, build_app: Callable[[], Any], *, handover_path: Path
    ) -> None:
        super().__init__(
            build_app,
            name="butterbase api",
            addresses=[f"{settings.host}:{settings.port}"],
            worker_count=settings.workers,
            websockets=hand_over_to(handover_path),
            bodies_bytes_max=settings.bodies_bytes_max,
        )
