"""`/healthz`: this process answers. `/readyz`: the database answers and its log is being read."""

import time

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Struct, structs

from butterbase.api.apps import Apps
from butterbase.api.log_health import (
    LogHealth,
    SeenStream,
    Slot,
    lag_bytes,
    log_of,
    read_log_health,
)
from butterbase.api.operators.operators import Operators
from butterbase.api.settings import ApiSettings
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.claims import SERVICE_ROLE
from butterbase.sql.errors import ButterbaseError, DatabaseError, DatabaseUnavailableError


class SlotHealth(Struct, frozen=True):
    database: str | None
    """Told to the service key and to operators alone."""
    active: bool
    """Whether somebody is connected to the slot."""
    lag_bytes: int | None
    """Not delivered to realtime and projections; None where no process tells that it reads."""
    lag_s: float | None
    wal_status: str | None


class Readiness(Struct, frozen=True):
    ready: bool
    database: bool
    stream: bool
    """Whether a stream process has told lately that it reads the logs."""
    slots: list[SlotHealth]


NOT_READY = Readiness(ready=False, database=False, stream=False, slots=[])


def readiness(health: LogHealth, *, lag_bytes_max: int, away_s_max: float) -> Readiness:
    """Pure."""
    leader = health.leader(away_s_max)
    slots = [_slot_health(slot, leader) for slot in health.slots]
    are_read = all(
        slot.active and slot.lag_bytes is not None and slot.lag_bytes <= lag_bytes_max
        for slot in slots
    )
    return Readiness(
        ready=bool(slots) and are_read, database=True, stream=leader is not None, slots=slots
    )


def _slot_health(slot: Slot, leader: SeenStream | None) -> SlotHealth:
    log = log_of(leader, slot.database)
    behind = None if leader is None or log is None else lag_bytes(leader, log)
    return SlotHealth(
        database=slot.database,
        active=slot.active,
        lag_bytes=behind,
        lag_s=None if log is None else log.lag_s,
        wal_status=slot.wal_status,
    )


class LiveResource:
    is_open = True

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"status":"ok"}'

    on_head = on_get


class ReadyResource:
    is_open = True

    def __init__(self, apps: Apps, operators: Operators, settings: ApiSettings) -> None:
        self._apps = apps
        self._operators = operators
        self._settings = settings

    async def on_get(self, req: Request, resp: Response) -> None:
        readiness = await self._read()
        if not await self._is_operator(req):
            readiness = structs.replace(
                readiness, slots=[structs.replace(s, database=None) for s in readiness.slots]
            )
        resp.status = 200 if readiness.ready else 503
        resp.content_type = falcon.MEDIA_JSON
        resp.data = msgspec.json.encode(readiness)
        if not readiness.ready:
            resp.set_header("Retry-After", "1")

    async def _is_operator(self, req: Request) -> bool:
        """Whether the service key was sent, or an operator's token: apps' names are not for all."""
        key, now_s = req.get_header("apikey") or "", time.time()
        try:
            app = await self._apps.find(FIRST_APP)
            claims = await self._operators.verify(key, now_s=now_s) or app.tokens.verify(
                key, now_s=now_s
            )
        except ButterbaseError:
            return False
        return claims.role == SERVICE_ROLE

    async def _read(self) -> Readiness:
        try:
            health = await read_log_health(self._apps.control)
        except (DatabaseError, DatabaseUnavailableError):
            return NOT_READY
        return readiness(
            health,
            lag_bytes_max=self._settings.ready_lag_bytes_max,
            away_s_max=self._settings.ready_away_s_max,
        )
