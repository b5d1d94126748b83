"""`/functions`: an app's functions, for its service role and keys with the scope `functions`."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import falcon
import msgspec
from falcon.asgi import App, Request, Response, SSEvent
from msgspec import UNSET, Raw

from butterbase.ai.http.body import decode_json, read_body
from butterbase.api.apps import AppRuntime
from butterbase.api.errors import RequestError
from butterbase.api.functions.bundler import Bundler
from butterbase.api.functions.client import FunctionsClient
from butterbase.api.functions.errors import (
    FunctionAdminRequiredError,
    FunctionGrantError,
    FunctionNotFoundError,
    FunctionTooLargeError,
    FunctionVersionNotFoundError,
    InvalidFunctionError,
    InvocationNotFoundError,
)
from butterbase.api.functions.gates import Gates
from butterbase.api.functions.model import (
    FILES_BYTES_MAX,
    AnyTrigger,
    Change,
    DatabaseTrigger,
    Deployment,
    PermissionsGiven,
    check_env,
    check_permissions,
    is_name,
    sources_of,
)
from butterbase.api.functions.records import LISTED_COUNT_MAX, Asked, Records
from butterbase.api.functions.runtime.hosts import parse_net
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.functions.store import FunctionStore, opens_data
from butterbase.api.functions.triggers import KeptTrigger, Triggers
from butterbase.api.keys.key import Scope
from butterbase.sql.claims import SERVICE_ROLE, Claims
from butterbase.sql.secrets import MasterKey

BODY_BYTES_MAX: Final = FILES_BYTES_MAX + 4 * 1024**2
CHANGE_BYTES_MAX: Final = 6 * 1024**2
FOLLOW_S: Final = 0.5
"""How often new lines are looked for, for who follows them."""
FOLLOWER_COUNT_MAX: Final = 50
"""In one worker."""
STATUSES: Final = frozenset(
    {"queued", "running", "succeeded", "failed", "dead", "skipped", "missed"}
)
KINDS: Final = frozenset({"http", "database", "cron", "queue"})

_DEPLOYMENT: Final = msgspec.json.Decoder(Deployment)
_CHANGE: Final = msgspec.json.Decoder(Change)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class Workshop:
    """What the resources share."""

    def __init__(
        self,
        master_key: MasterKey,
        client: FunctionsClient,
        gates: Gates,
        settings: FunctionsSettings,
        *,
        schemas: Sequence[str],
    ) -> None:
        """`schemas`: those whose changes the log tells."""
        self._master_key = master_key
        self._client = client
        self._gates = gates
        self._settings = settings
        self._schemas = schemas
        self._bundler = Bundler()
        self.follower_count = 0

    def store(self, app: AppRuntime) -> FunctionStore:
        return FunctionStore(app.id, app.service, self._master_key)

    async def deploy(self, app: AppRuntime, claims: Claims, given: Deployment) -> int:
        """The new version's number. Raises what deploying a function may be refused for."""
        sources = sources_of(given)
        triggers = await self._check(app, claims, given, given.name)
        bundle = await self._bundler.bundle(sources.files, sources.entrypoint)
        size, bytes_max = len(bundle.script.encode()), self._settings.functions_bundle_bytes
        if size > bytes_max:
            raise FunctionTooLargeError(
                f"the function's script has {size} bytes, of {bytes_max} that it may have"
            )
        made_by = claims.key_id or claims.subject or claims.role
        number = await self.store(app).deploy(
            given.name, sources, bundle, given, triggers, made_by=made_by
        )
        await self.tell(app.id, given.name)
        return number

    async def change(self, app: AppRuntime, claims: Claims, name: str, given: Change) -> None:
        triggers = await self._check(app, claims, given, name)
        await self.store(app).change(name, given, triggers)
        await self.tell(app.id, name)

    async def tell(self, app_id: str, name: str) -> None:
        self._gates.forget(app_id, name)
        await self._client.poke(app_id, "deployed", name)

    async def queued(self, app_id: str) -> None:
        await self._client.poke(app_id, "queued")

    async def _check(
        self, app: AppRuntime, claims: Claims, given: Change, name: str
    ) -> list[KeptTrigger] | None:
        """Raises InvalidFunctionError, InvalidTriggerError, FunctionGrantError."""
        if isinstance(given.env, dict):
            check_env(given.env)
        is_granted = any(isinstance(trigger, DatabaseTrigger) for trigger in given.triggers or ())
        if isinstance(given.permissions, PermissionsGiven):
            check_permissions(given.permissions)
            for host in given.permissions.net:
                parse_net(host)
            is_granted = is_granted or given.permissions.service
        await self.check_grant(app, claims, name, is_granted=is_granted)
        if isinstance(given.timeout_ms, int):
            longest = self._settings.functions_wall_ms_max
            if given.timeout_ms > longest:
                raise InvalidFunctionError(f"timeout_ms is {longest} at most")
        if isinstance(given.memory_mb, int):
            most = self._settings.functions_memory_mb_max
            if given.memory_mb > most:
                raise InvalidFunctionError(f"memory_mb is {most} at most")
        if given.triggers is UNSET:
            return None
        asked: list[AnyTrigger] = list(given.triggers or ())
        return await Triggers(app.service, self._schemas).check(asked)

    async def check_grant(
        self, app: AppRuntime, claims: Claims, name: str, *, is_granted: bool = False
    ) -> None:
        """A key that does not open the data changes no function that does, and makes none.

        `is_granted`: whether the function is to. Raises FunctionGrantError.
        """
        if _opens_data(claims):
            return
        if is_granted or await opens_data(app.service, name):
            raise FunctionGrantError(
                "the function is granted data, or told of it by triggers, which this key is not",
                hint="use the service_role key, or a key with the scope data",
            )


def add_routes(app: "App[Any, Any]", prefix: str, workshop: Workshop) -> None:
    base = f"{prefix}/functions"
    app.add_route(base, FunctionsResource(workshop))
    one = f"{base}/{{name}}"
    app.add_route(one, FunctionResource(workshop))
    app.add_route(f"{one}/versions", VersionsResource(workshop))
    app.add_route(f"{one}/versions/{{number:int}}", VersionResource(workshop))
    app.add_route(f"{one}/rollback", RollbackResource(workshop))
    app.add_route(f"{one}/invocations", InvocationsResource())
    app.add_route(f"{one}/invocations/{{invocation_id}}", InvocationResource())
    app.add_route(f"{one}/invocations/{{invocation_id}}/retry", RetryResource(workshop))
    app.add_route(f"{one}/logs", LogsResource(workshop))


class _Resource:
    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop


class FunctionsResource(_Resource):
    async def on_get(self, req: Request, resp: Response) -> None:
        app = _admitted(req)
        _answer(resp, {"functions": await self._workshop.store(app).list_all()})

    async def on_post(self, req: Request, resp: Response) -> None:
        """A new function, or the next version of one."""
        app = _admitted(req)
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
        given = decode_json(_DEPLOYMENT, body, InvalidFunctionError)
        number = await self._workshop.deploy(app, req.context.claims, given)
        function = await self._workshop.store(app).read(given.name)
        _answer(resp, {"version": number, "function": function}, falcon.HTTP_201)


class FunctionResource(_Resource):
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        _answer(resp, await self._workshop.store(_admitted(req)).read(_named(name)))

    async def on_patch(self, req: Request, resp: Response, name: str) -> None:
        app = _admitted(req)
        body = await read_body(req, bytes_max=CHANGE_BYTES_MAX)
        given = decode_json(_CHANGE, body, InvalidFunctionError)
        await self._workshop.change(app, req.context.claims, _named(name), given)
        _answer(resp, await self._workshop.store(app).read(name))

    async def on_delete(self, req: Request, resp: Response, name: str) -> None:
        app = _admitted(req)
        await self._workshop.check_grant(app, req.context.claims, _named(name))
        await self._workshop.store(app).delete(name)
        await self._workshop.tell(app.id, name)
        resp.status = falcon.HTTP_204


class VersionsResource(_Resource):
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        store = self._workshop.store(_admitted(req))
        _answer(resp, {"versions": await store.versions(_named(name))})


class VersionResource(_Resource):
    async def on_get(self, req: Request, resp: Response, name: str, number: int) -> None:
        if not 0 < number < 2**31:
            raise FunctionVersionNotFoundError
        store = self._workshop.store(_admitted(req))
        _answer(resp, await store.version(_named(name), number))


class RollbackResource(_Resource):
    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        """To the version before the active one."""
        app = _admitted(req)
        store = self._workshop.store(app)
        await self._workshop.check_grant(app, req.context.claims, _named(name))
        number = await store.roll_back(name)
        await self._workshop.tell(app.id, name)
        _answer(resp, {"version": number, "function": await store.read(name)})


class InvocationsResource:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        app = _admitted(req)
        asked = Asked(
            status=_one_of(req, "status", STATUSES),
            kind=_one_of(req, "type", KINDS),
            before=_whole(req, "before", 2**63 - 1),
            count=_whole(req, "limit", LISTED_COUNT_MAX) or 50,
        )
        found = await Records(app.service).invocations(_named(name), asked)
        _answer(resp, {"invocations": found})


class InvocationResource:
    async def on_get(self, req: Request, resp: Response, name: str, invocation_id: str) -> None:
        records = Records(_admitted(req).service)
        shows_data = _opens_data(req.context.claims)
        _answer(
            resp,
            await records.invocation(_named(name), _uuid(invocation_id), shows_data=shows_data),
        )


class RetryResource(_Resource):
    async def on_post(self, req: Request, resp: Response, name: str, invocation_id: str) -> None:
        app = _admitted(req)
        records = Records(app.service)
        await records.retry(_named(name), _uuid(invocation_id))
        await self._workshop.queued(app.id)
        shows_data = _opens_data(req.context.claims)
        found = await records.invocation(name, _uuid(invocation_id), shows_data=shows_data)
        _answer(resp, found, falcon.HTTP_202)


class LogsResource(_Resource):
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        """The last lines; as an event stream, and those to come."""
        app = _admitted(req)
        records = Records(app.service)
        count = _whole(req, "limit", LISTED_COUNT_MAX)
        after = _whole(req, "after", 2**63 - 1)
        if "text/event-stream" not in (req.get_header("Accept") or ""):
            lines, last = await records.logs(
                _named(name), after=after, count=100 if count is None else count
            )
            _answer(resp, {"logs": lines, "last": last})
            return
        event_id = req.get_header("Last-Event-ID") or ""
        if event_id.isdecimal() and event_id.isascii() and len(event_id) < 19:
            after = int(event_id)
        if self._workshop.follower_count >= FOLLOWER_COUNT_MAX:
            raise falcon.HTTPServiceUnavailable(title="too many follow logs", retry_after=5)
        first = await records.logs(_named(name), after=after, count=count or 20)
        resp.sse = self._follow(records, name, *first)
        resp.set_header("X-Accel-Buffering", "no")

    async def _follow(
        self, records: Records, name: str, lines: list[Raw], last: int | None
    ) -> AsyncIterator[SSEvent | None]:
        self._workshop.follower_count += 1
        try:
            while True:
                for line in lines:
                    id_ = msgspec.json.decode(line)["id"]
                    yield SSEvent(event="log", event_id=str(id_), text=bytes(line).decode())
                if not lines:
                    yield None  # a comment, by which a client that left is noticed
                await asyncio.sleep(FOLLOW_S)
                lines, last = await records.logs(name, after=last or 0, count=LISTED_COUNT_MAX)
        finally:
            self._workshop.follower_count -= 1


def _admitted(req: Request) -> AppRuntime:
    """The app. Raises FunctionAdminRequiredError."""
    claims: Claims = req.context.claims
    # An app key came this far only with the scope; a function may invoke others, and no more.
    if claims.role != SERVICE_ROLE or claims.function is not None:
        raise FunctionAdminRequiredError
    app: AppRuntime = req.context.app
    return app


def _opens_data(claims: Claims) -> bool:
    """An app key may be for functions and not for data."""
    return claims.scopes is None or Scope.DATA in claims.scopes


def _named(name: str) -> str:
    if not is_name(name):
        raise FunctionNotFoundError(f"there is no function {name[:100]!r}")
    return name


def _uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise InvocationNotFoundError(f"there is no record of {text[:100]!r}")
    return text


def _one_of(req: Request, name: str, known: frozenset[str]) -> str | None:
    value = req.get_param(name)
    if value is not None and value not in known:
        raise RequestError(f"{name} is one of {', '.join(sorted(known))}")
    return value


def _whole(req: Request, name: str, most: int) -> int | None:
    value = req.get_param(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and int(value) <= most):
        raise RequestError(f"{name} is a whole number, {most} at most")
    return int(value)


def _answer(resp: Response, value: object, status: str = falcon.HTTP_200) -> None:
    resp.status = status
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON
    resp.set_header("Cache-Control", "no-store")
