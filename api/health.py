"""`/healthz`: this process answers. `/readyz`: the database answers and its log is being read."""

import time

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Struct, structs

from butterbase.api.apps import Apps
from butterbase.api.operators.operators import Operators
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import SERVICE_ROLE
from butterbase.sql.errors import ButterbaseError, DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Statement

QUERIES = load_queries("health")

LAG_BYTES_MAX = 64 * 1024**2
"""A reader farther behind than this is not ready: what clients see is too old."""


class SlotHealth(Struct, frozen=True):
    database: str | None
    """Told to the service key and to operators alone."""
    active: bool
    lag_bytes: int


class Readiness(Struct, frozen=True):
    ready: bool
    database: bool
    slots: list[SlotHealth]


class LiveResource:
    is_open = True

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"status":"ok"}'

    on_head = on_get


class ReadyResource:
    is_open = True

    def __init__(self, apps: Apps, operators: Operators) -> None:
        self._apps = apps
        self._operators = operators

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
            (result,) = await self._apps.control.run(Statement(QUERIES["slots"]))
        except (DatabaseError, DatabaseUnavailableError):
            return Readiness(ready=False, database=False, slots=[])
        slots = msgspec.json.decode(result.value() or b"[]", type=list[SlotHealth])
        followed = bool(slots) and all(s.active and s.lag_bytes <= LAG_BYTES_MAX for s in slots)
        return Readiness(ready=followed, database=True, slots=slots)
