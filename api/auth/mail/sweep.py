"""At a worker's start: mails that a worker before it left in an outbox are sent."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from butterbase.api.apps import Apps
from butterbase.api.auth.mail.outbox import QUERIES
from butterbase.sql.cluster import Cluster, app_service
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

PAUSE_S: Final = 30.0


async def sweep(
    apps: Apps, cluster: Cluster, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Look into each app's outbox once. An app whose database is away is looked at again later."""
    waiting: list[tuple[str, str]] | None = None
    while waiting is None or waiting:
        try:
            if waiting is None:
                waiting = await _all_apps(apps)
            waiting = [app for app in waiting if not await _is_swept(apps, cluster, *app)]
        except ButterbaseError as error:
            logger.warning("the apps' outboxes cannot be listed: %s", error)
        if waiting is None or waiting:
            await sleep(PAUSE_S)


async def _all_apps(apps: Apps) -> list[tuple[str, str]]:
    """Id and database."""
    (result,) = await apps.control.run(Statement(QUERIES["list_apps"]))
    return [((id_ or b"").decode(), (database or b"").decode()) for id_, database in result.rows()]


async def _is_swept(apps: Apps, cluster: Cluster, app_id: str, database: str) -> bool:
    # Most have nothing to send, and finding an app reads its whole schema.
    service = Executor(cluster.dsn(app_service(app_id), database), connection_count_max=1)
    try:
        (result,) = await service.run(Statement(QUERIES["is_any_due"]))
        if result.value() == b"t":
            (await apps.find(app_id)).auth.outbox.kick()
    except ButterbaseError as error:
        logger.warning("the outbox of %s cannot be read: %s", app_id, error)
        return False
    finally:
        await service.close()
    return True
