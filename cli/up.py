"""`butterbase up`: everything on one machine, from one command.

The embedded Postgres (unless a database is given) → migrations → the app `main` → the stream
process → the functions process, where Deno is installed → the api process. Each is stopped in the
reverse order.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx

from butterbase.api.apps import keys_of
from butterbase.api.functions.runtime.errors import JailError
from butterbase.api.functions.runtime.jail.spawner import find_deno
from butterbase.cli.banner import banner
from butterbase.cli.runtime import SUPERVISED, load_master_key, superuser_password
from butterbase.cli.settings import Settings, to_environment
from butterbase.cli.setup import set_up
from butterbase.cli.supervisor import Child
from butterbase.sql.apps import App
from butterbase.sql.cluster import Cluster
from butterbase.sql.embedded import EmbeddedPostgres
from butterbase.sql.errors import SettingError
from butterbase.sql.server import connect

logger = logging.getLogger(__name__)

READY_WITHIN_S = 60.0
SERVER_INTERVAL_S = 0.5
"""How often to look whether the embedded Postgres runs."""


def up(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM. Raises SettingError."""
    # Until the loop has its own handlers, SIGTERM must not leave a half-started Postgres either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_port(settings.api.host, settings.api.port)
    key = load_master_key(settings)
    name = settings.database.control_database
    if settings.database.database_url:
        cluster = Cluster(settings.database.database_url, key, control_database=name)
        asyncio.run(_run(cluster, settings, server=None))
        return
    server = EmbeddedPostgres(settings.database.directory / "pg", password=superuser_password(key))
    try:
        cluster = Cluster(server.start(), key, control_database=name)
        asyncio.run(_run(cluster, settings, server))
    finally:
        server.stop()


def check_port(host: str, port: int) -> None:
    """Raises SettingError when something listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingError(
                f"cannot listen on {host}:{port}: {error.strerror};"
                " stop what listens there, or choose another --port"
            ) from None


async def _run(cluster: Cluster, settings: Settings, server: EmbeddedPostgres | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    app = await set_up(cluster, schemas=settings.stream.schemas)
    async with _children(cluster, settings) as children:
        announced = asyncio.create_task(_announce(cluster, settings, app))
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(stopping.wait())]
        ends += [asyncio.create_task(child.keep_running()) for child in children]
        if server is not None:
            ends.append(asyncio.create_task(_keep_running(server)))
        try:
            await _first_of(announced, *ends)
            await _first_of(*ends)
        finally:
            for task in (announced, *ends):
                task.cancel()


async def _keep_running(server: EmbeddedPostgres) -> None:
    """Start the embedded Postgres again when it ends. Raises SettingError when it cannot."""
    while True:
        await asyncio.sleep(SERVER_INTERVAL_S)
        if not server.is_running:
            logger.warning("the embedded Postgres ended; starting it again")
            # In this thread, which holds up only the supervision: the server ends with it.
            server.start()


async def _first_of(*tasks: "asyncio.Task[Any]") -> None:
    """Wait until one has ended; raise what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


@contextlib.asynccontextmanager
async def _children(cluster: Cluster, settings: Settings) -> AsyncIterator[list[Child]]:
    environment = dict(os.environ) | to_environment(settings)
    environment["BUTTERBASE_DATABASE_URL"] = cluster.admin_dsn()
    if settings.ai.ai_private_base_urls is None and is_own_machine(settings):
        # Whoever holds the service key is at this machine anyway: a local model is what they want.
        environment["BUTTERBASE_AI_PRIVATE_BASE_URLS"] = "true"
    if settings.api.auth_private_urls is None and is_own_machine(settings):
        environment["BUTTERBASE_AUTH_PRIVATE_URLS"] = "true"
    environment[SUPERVISED] = str(os.getpid())
    commands = {"stream": ["stream"], "functions": ["functions", "serve"], "api": ["api"]}
    if not has_deno(settings):
        del commands["functions"]
    children = [
        Child(name, [sys.executable, "-P", "-m", "butterbase.cli", *command], environment)
        for name, command in commands.items()
    ]
    try:
        for child in children:
            await child.start()
        yield children
    finally:
        for child in reversed(children):
            await child.stop()


def has_deno(settings: Settings) -> bool:
    """Whether functions can be run; said in the log where they cannot."""
    try:
        find_deno(settings.functions.functions_deno)
    except JailError as error:
        logger.warning("functions are not run: %s (%s)", error, error.hint)
        return False
    return True


def is_own_machine(settings: Settings) -> bool:
    """Whether everything is here, and nothing is reached from elsewhere."""
    is_local = settings.api.host in ("127.0.0.1", "::1", "localhost")
    return is_local and not (settings.database.database_url or settings.api.public_url)


async def _announce(cluster: Cluster, settings: Settings, app: App) -> None:
    await wait_until_ready(settings.api.local_url)
    async with await connect(cluster.admin_dsn()) as conn:
        version = conn.info.server_version // 10000
    keys = keys_of(cluster, app.id, app.created_at, settings.api)
    print(banner(settings.api.url, keys, version=version), flush=True)


async def wait_until_ready(url: str) -> None:
    """Until `/readyz` answers 200. Raises SettingError when that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_WITHIN_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
    raise SettingError(f"{url} was not ready within {READY_WITHIN_S:.0f} s")
