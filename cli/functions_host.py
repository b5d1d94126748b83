"""`butterbase functions serve`: the process that runs functions, one a machine.

Workers of the api bring it calls through a socket; triggers, cron and queues are worked on here.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import uvloop
from psycopg.conninfo import conninfo_to_dict

from butterbase.api.functions.control import Control
from butterbase.api.functions.runtime.egress import Address, ApiUrls
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.api.functions.runtime.server import CallServer
from butterbase.cli.runtime import functions_path, open_cluster
from butterbase.cli.settings import Settings
from butterbase.sql.cluster import Cluster

logger = logging.getLogger(__name__)

_POSTGRES_PORT = 5432


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingError, JailError."""
    uvloop.run(_serve(open_cluster(settings), settings))


async def _serve(cluster: Cluster, settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    path = functions_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    api, functions = settings.api, settings.functions
    control = Control(cluster, functions, api)
    runtime = Runtime(
        functions,
        recorder=control,
        operations=control,
        api_urls=ApiUrls(api.url, functions.functions_api_url or api.local_url),
        refused=await _addresses(cluster.admin_dsn()),
    )
    await control.open()
    try:
        async with runtime:
            server = CallServer(
                runtime, control, lambda poke: control.poked(poke.app_id, poke.kind, poke.name)
            )
            await server.listen(path)
            try:
                await _until_first(stopping.wait(), control.run(runtime), runtime.wait_lost())
            finally:
                await server.close()
    finally:
        await control.close()


async def _until_first(*works: Coroutine[Any, Any, object]) -> None:
    """Until one has ended; raises what it raised. The others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task in done:
        task.result()


async def _addresses(dsn: str) -> list[Address]:
    """Where our Postgres is, which no function may reach, though it be a public address."""
    parameters = conninfo_to_dict(dsn)
    hosts = str(parameters.get("hostaddr") or parameters.get("host") or "").split(",")
    ports = str(parameters.get("port") or _POSTGRES_PORT).split(",")
    found: list[Address] = []
    for at, host in enumerate(hosts):
        if not host or host.startswith(("/", "@")):
            continue
        port = int(ports[at] if at < len(ports) else ports[0])
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            logger.warning("the database's host has no address: %s", error)
            continue
        found += [(str(info[4][0]), int(info[4][1])) for info in infos]
    return found
