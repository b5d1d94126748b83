"""`butterbase api`: the web edge as a process of its own."""

import os
from typing import Any

from butterbase.ai.telemetry.otlp import open_telemetry, otlp_config
from butterbase.api.app import create_app
from butterbase.api.server import ApiServer
from butterbase.cli.runtime import (
    die_with,
    functions_path,
    handover_path,
    models_dir,
    open_cluster,
)
from butterbase.cli.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until SIGTERM. Raises SettingError."""
    cluster = open_cluster(settings)
    otlp = otlp_config(settings.telemetry.otlp_endpoint, os.environ)
    arbiter = os.getpid()

    def build_app() -> Any:
        # A worker that outlives a killed arbiter would keep the port from the next one.
        die_with(arbiter)
        return create_app(
            cluster,
            settings.api,
            settings.ai,
            settings.embedder,
            settings.documents,
            models_dir=models_dir(settings),
            realtime=settings.stream.realtime,
            functions=settings.functions,
            functions_path=functions_path(settings),
            telemetry=None if otlp is None else open_telemetry(otlp),
        )

    ApiServer(settings.api, build_app, handover_path=handover_path(settings)).run()
