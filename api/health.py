"""`/healthz`: this process answers. `/readyz`: the database answers and its log is being read."""

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Struct

from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("health")

LAG_BYTES_MAX = 64 * 1024**2
"""A reader farther behind than this is not ready: what clients see is too old."""


class SlotHealth(Struct, frozen=True):
    database: str
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


class ReadyResource:
    is_open = True

    def __init__(self, control: Executor) -> None:
        self._control = control

    async def on_get(self, _req: Request, resp: Response) -> None:
        readiness = await self._read()
        resp.status = 200 if readiness.ready else 503
        resp.content_type = falcon.MEDIA_JSON
        resp.data = msgspec.json.encode(readiness)
        if not readiness.ready:
            resp.set_header("Retry-After", "1")

    async def _read(self) -> Readiness:
        try:
            (result,) = await self._control.run(Statement(QUERIES["slots"]))
        except (DatabaseError, DatabaseUnavailableError):
            return Readiness(ready=False, database=False, slots=[])
        slots = msgspec.json.decode(result.value() or b"[]", type=list[SlotHealth])
        followed = bool(slots) and all(s.active and s.lag_bytes <= LAG_BYTES_MAX for s in slots)
        return Readiness(ready=followed, database=True, slots=slots)
