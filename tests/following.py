"""The log's readers in the test's own loop, as cli/stream.py runs them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.cli.settings import Settings, load_settings
from butterbase.cli.streams import Streams
from tests.installation import Installation


def settings_of(installation: Installation, **more: object) -> Settings:
    return load_settings(
        more
        | {
            "database_url": installation.cluster.admin_dsn(),
            "master_key": installation.cluster.master_key.text(),
            "control_database": installation.control.name,
        },
        {},
        Path("/nonexistent"),
    )


@asynccontextmanager
async def following(
    installation: Installation, embedder: LazyEmbedder, **settings: object
) -> AsyncIterator[Streams]:
    """The stream process's readers, without its sockets."""
    streams = Streams(installation.cluster, settings_of(installation, **settings), embedder)
    task = asyncio.create_task(streams.run())
    try:
        yield streams
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
