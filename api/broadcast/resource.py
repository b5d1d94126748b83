"""`/realtime/v1/api/broadcast`: messages into channels, over HTTP.

The stream process, which has the sockets, is another one. Messages go to it through the log, in the
order of their commits; into a private channel only what its policies let the caller send.
"""

import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import falcon
import msgspec
from falcon.asgi import App, Request, Response

from butterbase.ai.http.body import BodyTooLargeError, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.broadcast.errors import (
    BroadcastError,
    BroadcastForbiddenError,
    BroadcastRateError,
    InvalidBroadcastError,
    UnauthorizedError,
)
from butterbase.api.broadcast.messages import TOO_LARGE, Limits, parse_batch, parse_single
from butterbase.api.callers import verify_caller
from butterbase.api.errors import MissingKeyError
from butterbase.api.keys.errors import InsufficientScopeError
from butterbase.api.keys.key import Scope
from butterbase.api.operators.errors import OperatorFactorError
from butterbase.api.operators.operators import Operators
from butterbase.realtime.rooms.authorization import QUERIES, Authorization
from butterbase.realtime.rooms.logged_broadcasts import EmittedMessage, encode_emitted
from butterbase.realtime.session.pushes import BROADCAST
from butterbase.realtime.session.rates import FULL, Bucket, Rate, take
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError, InvalidTokenError
from butterbase.sql.pipeline import Statement

_ROUTE = "/realtime/v1/api/broadcast"


def add_routes(
    app: "App[Any, Any]", prefix: str, gate: "BroadcastGate", *, body_bytes_max: int
) -> None:
    """Below a prefix, once for each."""
    app.add_route(f"{prefix}{_ROUTE}", BatchResource(gate, body_bytes_max))
    app.add_route(f"{prefix}{_ROUTE}/{{rest:path}}", SingleResource(gate))


async def on_error(
    _req: Request, resp: Response, error: BroadcastError, _params: dict[str, object]
) -> None:
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(error.body)


class BroadcastGate:
    """Who may broadcast, and how much: what both routes share."""

    def __init__(
        self, operators: Operators | None, *, rate_max: int, realtime: RealtimeSettings
    ) -> None:
        self.limits = Limits(realtime.payload_bytes_max, realtime.topic_bytes_max)
        self._realtime = realtime
        self._operators = operators
        self._rate = Rate(rate_max, 1.0)
        self._buckets: dict[str, Bucket] = {}
        self._policies: WeakKeyDictionary[AppRuntime, Authorization] = WeakKeyDictionary()

    async def caller(self, req: Request) -> Claims:
        """Raises UnauthorizedError, DatabaseUnavailableError."""
        app: AppRuntime = req.context.app
        try:
            return await verify_caller(
                app.tokens,
                app.keyring,
                scope=Scope.DATA,
                authorization=req.get_header("Authorization"),
                key=req.get_header("apikey"),
                now_s=time.time(),
                operators=self._operators,
            )
        except (
            MissingKeyError,
            InvalidTokenError,
            InsufficientScopeError,
            OperatorFactorError,
        ) as error:
            raise UnauthorizedError from error

    def count(self, app_id: str, count: int, *, now_s: float) -> None:
        """Raises BroadcastRateError."""
        bucket = self._buckets.get(app_id, FULL)
        taken = take(bucket, self._rate, now_s, count=count)
        if taken is None:
            if take(bucket, self._rate, now_s) is None:
                raise BroadcastRateError
            raise BroadcastRateError("Too many messages to broadcast, please reduce the batch size")
        self._buckets[app_id] = taken

    async def allowed(
        self, app: AppRuntime, claims: Claims, messages: Sequence[EmittedMessage]
    ) -> list[EmittedMessage]:
        """Those to public channels, and those to private ones that the caller may write to.

        Raises DatabaseUnavailableError.
        """
        policies = self._policies.get(app)
        if policies is None:
            policies = self._policies[app] = Authorization(app.data, self._realtime)
        writable: dict[str, bool] = {}
        for topic in dict.fromkeys(m.topic for m in messages if m.is_private):
            try:
                writable[topic] = await policies.may_write(claims, topic, BROADCAST)
            except DatabaseError:  # a policy that fails lets nobody in
                writable[topic] = False
        return [m for m in messages if not m.is_private or writable[m.topic]]

    async def emit(self, app: AppRuntime, messages: Sequence[EmittedMessage]) -> None:
        """Raises DatabaseUnavailableError."""
        if messages:
            content = b"\\x" + encode_emitted(messages).hex().encode()
            await app.service.run(Statement(QUERIES["emit_broadcast"], (content,)))


class BatchResource:
    is_keyless = True  # the gate verifies: a refusal has another form here

    def __init__(self, gate: BroadcastGate, body_bytes_max: int) -> None:
        self._gate = gate
        self._body_bytes_max = body_bytes_max

    async def on_post(self, req: Request, resp: Response) -> None:
        app: AppRuntime = req.context.app
        claims = await self._gate.caller(req)
        body = await read_body(req, bytes_max=self._body_bytes_max)
        messages = parse_batch(body, self._gate.limits)
        self._gate.count(app.id, len(messages), now_s=time.monotonic())
        # Those that may not be sent are lost without a word, as those of a socket are.
        await self._gate.emit(app, await self._gate.allowed(app, claims, messages))
        resp.status = falcon.HTTP_202


class SingleResource:
    is_keyless = True

    def __init__(self, gate: BroadcastGate) -> None:
        self._gate = gate

    async def on_post(self, req: Request, resp: Response, rest: str) -> None:
        app: AppRuntime = req.context.app
        claims = await self._gate.caller(req)
        message = parse_single(
            _encoded(req),
            is_private=req.get_param("private", default="").lower() == "true",
            content_type=req.content_type or "",
            body=await self._read(req),
            limits=self._gate.limits,
        )
        if message is None:
            raise falcon.HTTPNotFound
        self._gate.count(app.id, 1, now_s=time.monotonic())
        if not await self._gate.allowed(app, claims, [message]):
            raise BroadcastForbiddenError
        await self._gate.emit(app, [message])
        resp.status = falcon.HTTP_202

    async def _read(self, req: Request) -> bytes:
        try:
            return await read_body(req, bytes_max=self._gate.limits.payload_bytes)
        except BodyTooLargeError as error:
            raise InvalidBroadcastError({"payload": [TOO_LARGE]}) from error


def _encoded(req: Request) -> bytes:
    """What follows the route as it was sent: decoded, a slash in a topic would look like ours."""
    path: bytes = req.scope["raw_path"]
    return path.partition(_ROUTE.encode() + b"/")[2]
