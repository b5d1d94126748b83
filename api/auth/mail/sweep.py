"""At a worker's start and every hour: mails that another worker left in an outbox are sent.

And what has expired is dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from butterbase.api.apps import AppRuntime, Apps
from butterbase.api.auth.mail.outbox import KEPT_S, QUERIES
from butterbase.sql.cluster import Cluster, app_service
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

PAUSE_S: Final = 30.0
INTERVAL_S: Final = 3600.0


async def sweep(
    apps: Apps,
    cluster: Cluster,
    operators: AppRuntime,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Until cancelled."""
    while True:
        await _sweep_all(apps, cluster, operators, sleep)
        await sleep(INTERVAL_S)


async def _sweep_all(
    apps: Apps, cluster: Cluster, operators: AppRuntime, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Once each. An app whose database is away is looked at again later."""
    waiting: list[tuple[str, str]] | None = None
    are_operators_swept = False
    while waiting is None or waiting or not are_operators_swept:
        try:
            if not are_operators_swept:
                if await _is_any_due(operators.service):
                    operators.auth.outbox.kick()
                are_operators_swept = True
            if waiting is None:
                waiting = await _all_apps(apps)
            waiting = [app for app in waiting if not await _is_swept(apps, cluster, *app)]
        except ButterbaseError as error:
            logger.warning("the apps' outboxes cannot be listed: %s", error)
        if waiting is None or waiting or not are_operators_swept:
            await sleep(PAUSE_S)


async def _all_apps(apps: Apps) -> list[tuple[str, str]]:
    """Id and database."""
    (result,) = await apps.control.run(Statement(QUERIES["list_apps"]))
    return [((id_ or b"").decode(), (database or b"").decode()) for id_, database in result.rows()]


async def _is_swept(apps: Apps, cluster: Cluster, app_id: str, database: str) -> bool:
    # Most have nothing to send, and finding an app reads its whole schema.
    service = Executor(cluster.dsn(app_service(app_id), database), connection_count_max=1)
    try:
        if await _is_any_due(service):
            (await apps.find(app_id)).auth.outbox.kick()
    except ButterbaseError as error:
        logger.warning("the outbox of %s cannot be read: %s", app_id, error)
        return False
    finally:
        await service.close()
    return True


async def _is_any_due(service: Executor) -> bool:
    """After what has expired is gone."""
    *_, due = await service.run(
        Statement(QUERIES["purge"], (repr(KEPT_S).encode(),)),
        Statement(QUERIES["drop_expired"]),
        Statement(QUERIES["is_any_due"]),
    )
    return due.value() == b"t"
