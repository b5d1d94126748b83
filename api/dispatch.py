"""The front of the web edge: an application for the REST API, one for calls to models, one for
questions to collections, one for calls of functions, and Falcon for everything else.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from butterbase.ai.http.departures import Receive
from butterbase.ai.http.endpoint import AiEndpoint
from butterbase.ai.rag.endpoint import QueryEndpoint
from butterbase.ai.rag.search import Place
from butterbase.api.functions.endpoint import FunctionsEndpoint
from butterbase.api.rest.endpoint import RestEndpoint, Scope, Send
from butterbase.sql.apps import FIRST_APP

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_REST = re.compile(rb"(?:/v1/([^/]+))?/rest/v1(/.*)?")
# Anthropic's clients add /v1 to the base URL themselves.
CALLS = re.compile(
    rb"(?:/v1/([^/]+))?(?:/v1)?"
    rb"/(chat/completions|ai/chat|responses|messages|embeddings|models(?:/.+)?)"
)
_QUERY = re.compile(rb"/v1/([^/]+)/rag/(indexes/)?([^/]+)/query")

_FUNCTIONS = re.compile(
    rb"(?:(?:/v1/(?P<app>[^/]+))?/functions/v1|/v1/(?P<own>[^/]+)/fn)/(?P<name>[^/]+)(?P<path>/.*)?"
)


class Dispatch:
    """The first app is served at the root and, like every app, below its own prefix."""

    def __init__(
        self,
        rest: RestEndpoint,
        falcon: "Callable[..., Any]",
        ai: AiEndpoint | None = None,
        questions: QueryEndpoint | None = None,
        functions: FunctionsEndpoint | None = None,
    ) -> None:
        self._rest = rest
        self._functions = functions
        self._ai = ai
        self._questions = questions
        self._falcon = falcon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := _REST.fullmatch(scope["raw_path"])):
            app_id, path = found.groups()
            await self._rest(
                scope,
                receive,
                send,
                app_id=_app_id(app_id),
                path="/" if path is None else path.decode("latin-1"),
            )
            return
        if (
            self._ai is not None
            and scope["type"] == "http"
            and (found := CALLS.fullmatch(scope["raw_path"]))
        ):
            app_id, path = found.groups()
            await self._ai(scope, receive, send, app_id=_app_id(app_id), path=_text(path))
            return
        if (
            self._questions is not None
            and scope["type"] == "http"
            and (found := _QUERY.fullmatch(scope["raw_path"]))
        ):
            app_id, is_index, name = found.groups()
            place = Place("index" if is_index else "collection", _text(name))
            await self._questions(scope, receive, send, app_id=_app_id(app_id), place=place)
            return
        if (
            self._functions is not None
            and scope["type"] == "http"
            and (found := _FUNCTIONS.fullmatch(scope["raw_path"]))
        ):
            await self._functions(
                scope,
                receive,
                send,
                app_id=_app_id(found["app"] or found["own"]),
                name=unquote_to_bytes(found["name"]).decode("utf-8", "replace"),
                path=(found["path"] or b"").decode("latin-1"),
            )
            return
        await self._falcon(scope, receive, send)


def _app_id(text: bytes | None) -> str:
    return FIRST_APP if text is None else unquote_to_bytes(text).decode("latin-1")


def _text(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")
