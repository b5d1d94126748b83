"""The api process: gunicorn's arbiter over uvicorn workers, one event loop each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from butterbase.api.handover import hand_over_to
from butterbase.api.settings import ApiSettings

KEEP_ALIVE_S = 75
GRACEFUL_STOP_S = 20


class ApiServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`build_app` is called in each worker, so that nothing with a socket crosses a fork."""

    def __init__(
        self, settings: ApiSettings, build_app: Callable[[], Any], *, handover_path: Path
    ) -> None:
        self._settings = settings
        self._build_app = build_app
        self._handover_path = handover_path
        super().__init__()

    def load_config(self) -> None:
        path = self._handover_path

        class ApiWorker(UvicornWorker):  # type: ignore[misc]  # nor has uvicorn_worker
            CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  as uvicorn_worker declares it
                "loop": "uvloop",
                "http": "httptools",
                "ws": hand_over_to(path),
                "lifespan": "on",
                "server_header": False,
                "proxy_headers": False,  # nothing here goes by the client's address
            }

        self.cfg.set("bind", f"{self._settings.host}:{self._settings.port}")
        self.cfg.set("workers", self._settings.workers)
        self.cfg.set("worker_class", ApiWorker)
        self.cfg.set("keepalive", KEEP_ALIVE_S)
        self.cfg.set("graceful_timeout", GRACEFUL_STOP_S)
        self.cfg.set("loglevel", "warning")
        self.cfg.set("proc_name", "butterbase api")
        self.cfg.set("control_socket_disable", True)  # it would lie in the user's home

    def load(self) -> Any:
        return self._build_app()
