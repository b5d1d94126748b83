"""`POST query`, as an ASGI application: it may ask a model, and so must learn that a client left.

Falcon neither tells nor lets that end a stream; see ai/http/endpoint.py.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import msgspec
from msgspec import Struct

from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import Answer
from butterbase.ai.http.body import decode_json
from butterbase.ai.http.callers import caller_of
from butterbase.ai.http.connection import (
    Connection,
    Headers,
    Scope,
    Send,
    added_headers,
    answer_other,
    send_answer,
    text_of,
)
from butterbase.ai.http.departures import Departures, Receive
from butterbase.ai.rag.answering import candidate_count, reply
from butterbase.ai.rag.asking import Models
from butterbase.ai.rag.errors import RagRequestError
from butterbase.ai.rag.requests import FIELDS_HINT
from butterbase.ai.rag.search import Asker, Place, Question, Searcher
from butterbase.ai.rag.vectors import Questioner, QuestionVectors

BODY_BYTES_MAX = 256 * 1024

Admit: TypeAlias = Callable[[str, Headers], Awaitable[Asker]]
"""App id, headers → the verified caller and its database. Raises ButterbaseError."""

Render: TypeAlias = Callable[[Exception, Asker | None], Answer]
"""An error as an answer; without an asker where the error is about who asks."""

_QUESTION = msgspec.json.Decoder(Question)


class QueryEndpoint:
    def __init__(
        self,
        gateway: Gateway,
        vectors: QuestionVectors,
        admit: Admit,
        *,
        render: Render,
        request_id_of: Callable[[str | None], str],
    ) -> None:
        self._gateway = gateway
        self._searcher = Searcher()
        self._vectors = vectors
        self._admit = admit
        self._render = render
        self._request_id_of = request_id_of
        self._departures = Departures()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, app_id: str, place: Place
    ) -> None:
        headers: Headers = dict(reversed(scope["headers"]))
        request_id = self._request_id_of(text_of(headers, b"x-request-id"))
        added = added_headers(headers, request_id)
        if await answer_other(send, scope["method"], "POST", headers, added):
            return
        with Connection(self._departures, headers, receive, BODY_BYTES_MAX) as connection:
            asked = _Asked(app_id, place, headers, request_id)
            answer = await self._answer(asked, connection)
            await send_answer(send, answer.status, answer.headers + added, answer.body)

    async def _answer(self, asked: "_Asked", connection: Connection) -> Answer:
        asker: Asker | None = None
        try:
            asker = await self._admit(asked.app_id, asked.headers)
            return await self._perform(asked, asker, connection)
        except Exception as error:  # what nobody foresaw is told without details
            return self._render(error, asker)

    async def _perform(self, asked: "_Asked", asker: Asker, connection: Connection) -> Answer:
        question = decode_json(_QUESTION, await connection.read(), _refusal)
        question.check()
        caller, models = caller_of(asked.app_id, asker.claims, asked.request_id), None
        if question.synthesize or question.rerank:
            models = Models(self._gateway, caller, connection, question.model)
            await models.check()
        count = candidate_count(question)
        embed = partial(self._vectors.embed, Questioner(caller, connection))
        found = await self._searcher.find(asker, asked.place, question, count=count, embed=embed)
        return await reply(question, found, models)


class _Asked(Struct, frozen=True):
    app_id: str
    place: Place
    headers: Headers
    request_id: str


def _refusal(reason: str) -> RagRequestError:
    return RagRequestError(f"the body cannot be read: {reason}", hint=FIELDS_HINT)
