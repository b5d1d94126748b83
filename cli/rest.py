"""`butterbase rest`: a database of the user's own, served as PostgREST would serve it."""

import asyncio
import io
import logging
import os
import signal
import sys
import urllib.request
from argparse import Namespace
from pathlib import Path
from urllib.error import URLError

from butterbase.api.rest.postgrest.app import PostgrestApp
from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.api.rest.postgrest.in_database import read_settings
from butterbase.api.rest.postgrest.loading import Sources, open_executor
from butterbase.api.rest.postgrest.server import RestServer, local_address
from butterbase.api.rest.postgrest.sources import dump_config, example_config
from butterbase.cli.runtime import die_with
from butterbase.cli.settings import Settings
from butterbase.sql.errors import SettingError

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 5

WITHOUT_EFFECT = ("db_pool_max_idletime", "db_pool_max_lifetime", "log_query")
"""Settings whose default is all that there is here; who sets another is told."""


def rest(settings: Settings, arguments: Namespace) -> None:
    """Do what the command line says. Raises SettingError."""
    if arguments.example:
        sys.stdout.write(example_config())
        return
    sources = Sources(os.environ, Path(arguments.file) if arguments.file else None)
    config = sources.read()
    if arguments.dump_config:
        _write(dump_config(asyncio.run(_with_database(sources, config))))
    elif arguments.ready:
        check_ready(config)
    else:
        serve(settings, sources, config)


def serve(settings: Settings, sources: Sources, config: PostgrestConfig) -> None:
    """Serve until SIGTERM."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the log of requests, also into a file
        sys.stdout.reconfigure(line_buffering=True)
    for name in sources.unknown_names():
        logger.warning("%s is no setting of PostgREST and sets nothing", name)
    for name in _without_effect(config):
        logger.warning("%s has no effect here: see docs/postgrest-mode.md", name)
    arbiter = os.getpid()
    worker_count = settings.api.workers

    def build_app() -> PostgrestApp:
        # A worker that outlives a killed arbiter would keep the port from the next one.
        die_with(arbiter)
        return PostgrestApp(
            sources,
            worker_count=worker_count,
            body_bytes_max=settings.api.body_bytes_max,
            stop=lambda: os.kill(arbiter, signal.SIGTERM),
        )

    RestServer(config, build_app, worker_count=worker_count).run()


def check_ready(config: PostgrestConfig) -> None:
    """Raises SettingError when there is no admin server that says so."""
    port = config.admin_server_port
    if port is None:
        raise SettingError("--ready needs admin-server-port", hint="set PGRST_ADMIN_SERVER_PORT")
    url = f"http://{local_address(config.admin_server_host or config.server_host, port)}/ready"
    try:
        with urllib.request.urlopen(url, timeout=READY_TIMEOUT_S):
            print(f"OK: {url}")
    except (OSError, URLError) as error:
        raise SettingError(f"{url}: {error}") from None


async def _with_database(sources: Sources, config: PostgrestConfig) -> PostgrestConfig:
    if not config.db_config:
        return config
    executor = open_executor(config, connection_count_max=1)
    try:
        return sources.reread(config, await read_settings(executor, config))
    finally:
        await executor.close()


def _without_effect(config: PostgrestConfig) -> list[str]:
    default = PostgrestConfig()
    return [
        name.replace("_", "-")
        for name in WITHOUT_EFFECT
        if getattr(config, name) != getattr(default, name)
    ]


def _write(text: str) -> None:
    # A secret may be binary, and what is printed is text.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
