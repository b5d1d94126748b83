"""`ai/prompts`: an app's prompt templates, for its service role and keys with the scope `admin`."""

from typing import Any

import falcon.asgi
import msgspec
from falcon.asgi import Request, Response

from butterbase.ai.http.admin import check_is_service, errors_as_openais
from butterbase.ai.http.body import decode_json, read_body
from butterbase.ai.prompts.errors import PromptTemplateError
from butterbase.ai.prompts.store import ActiveChange, NewPrompt, PromptStore

BODY_BYTES_MAX = 2 * 1024**2

_NEW = msgspec.json.Decoder(NewPrompt)
_CHANGE = msgspec.json.Decoder(ActiveChange)


def add_routes(
    app: "falcon.asgi.App[Any, Any]", store: PromptStore, *, prefix: str = "/v1/{app_id}"
) -> None:
    app.add_route(f"{prefix}/ai/prompts", PromptsResource(store))
    app.add_route(f"{prefix}/ai/prompts/{{name}}", PromptResource(store))


class PromptsResource:
    def __init__(self, store: PromptStore) -> None:
        self._store = store

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        _answer(resp, {"prompts": await self._store.list_all(req.context.app_id)})

    @errors_as_openais
    async def on_post(self, req: Request, resp: Response) -> None:
        """A new prompt, or the next version of one."""
        check_is_service(req.context.claims)
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
        new = decode_json(_NEW, body, PromptTemplateError)
        _answer(resp, await self._store.add(req.context.app_id, new), falcon.HTTP_201)


class PromptResource:
    def __init__(self, store: PromptStore) -> None:
        self._store = store

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        check_is_service(req.context.claims)
        _answer(resp, await self._store.read(req.context.app_id, name))

    @errors_as_openais
    async def on_patch(self, req: Request, resp: Response, name: str) -> None:
        """Which version calls get that name none."""
        check_is_service(req.context.claims)
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
        change = decode_json(_CHANGE, body, PromptTemplateError)
        await self._store.activate(req.context.app_id, name, change.active_version)
        _answer(resp, await self._store.read(req.context.app_id, name))

    @errors_as_openais
    async def on_delete(self, req: Request, resp: Response, name: str) -> None:
        check_is_service(req.context.claims)
        await self._store.delete(req.context.app_id, name)
        resp.status = falcon.HTTP_204


def _answer(resp: Response, value: object, status: str = falcon.HTTP_200) -> None:
    resp.status = status
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON
