"""`butterbase stream`: the logs' reader, and all that follows from it, in one event loop.

control database's log → usage; apps that come and go
each app's log         → realtime subscribers; chunks, and their vectors; schema changes
"""

import asyncio
import logging
import signal

import uvloop

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.cli.runtime import handover_path, models_dir, open_cluster
from butterbase.cli.settings import Settings
from butterbase.cli.streams import MoreProjections, Streams
from butterbase.projections.status import SocketStatus
from butterbase.realtime.sockets.server import RealtimeServer
from butterbase.sql.cluster import Cluster
from butterbase.sql.errors import SettingError

logger = logging.getLogger(__name__)

LISTEN_RETRY_S = 0.25
LISTEN_WITHIN_S = 15.0
"""How long the process before may take to leave its socket."""


def serve(settings: Settings, *, more_projections: MoreProjections = lambda _: ()) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingError, SlotError, SteppedDownError."""
    uvloop.run(_serve(open_cluster(settings), settings, more_projections))


async def _serve(cluster: Cluster, settings: Settings, more_projections: MoreProjections) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    embedder = LazyEmbedder(settings.embedder, models_dir(settings))
    streams = Streams(cluster, settings, embedder, more_projections=more_projections)
    server = RealtimeServer(streams.realtime, settings.stream.realtime)
    streams.close_sockets = server.close_app
    streams.count_sockets = lambda: SocketStatus(
        server.connection_count, server.frames_sent, server.frames_dropped
    )
    tasks = [
        asyncio.create_task(streams.run()),
        asyncio.create_task(_serve_sockets(streams, server, settings)),
        asyncio.create_task(stopping.wait()),
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await embedder.close()
    for task in done:
        task.result()


async def _serve_sockets(streams: Streams, server: RealtimeServer, settings: Settings) -> None:
    """Accept sockets once this process leads, until cancelled. Raises SettingError."""
    await streams.wait_served()
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LISTEN_WITHIN_S
    while True:
        try:
            server.listen_hand_over(handover_path(settings))
            break
        except SettingError as error:
            # It does not lead any more, and may not know it yet.
            if loop.time() > until_s:
                raise
            logger.warning("%s; trying again", error)
            await asyncio.sleep(LISTEN_RETRY_S)
    if settings.stream.stream_port:
        await server.listen(settings.stream.stream_host, settings.stream.stream_port)
    await asyncio.Event().wait()
