"""Passages → a model, through the gateway: what it does cost is the caller's, as with any call."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Caller, Header
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import Answer
from butterbase.ai.errors import UpstreamInvalidError
from butterbase.ai.http.body import decode_json
from butterbase.ai.http.connection import Connection
from butterbase.ai.wire.form import NULL
from butterbase.ai.wire.sse import EventStreamDecoder

_CONTENT_TYPE = b"content-type"


class _Message(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    message: _Message = _Message()
    delta: _Message = _Message()


class _Completion(Struct, frozen=True):
    """Whole, or a chunk of a stream."""

    choices: list[_Choice] = []
    model: str | None = None
    usage: Raw = NULL
    error: Raw = NULL


_COMPLETION = msgspec.json.Decoder(_Completion)


class Said(Struct, frozen=True):
    """What a model answers, or a piece of it."""

    text: str
    model: str | None = None
    usage: Raw = NULL
    error: Raw = NULL
    """In OpenAI's form: how a stream ends that broke off."""


class Reply(Struct, frozen=True):
    headers: list[Header]
    """That tell what the call was."""
    said: "Said | AsyncGenerator[Said, None]"


class Models:
    """The gateway, for the questions of one request."""

    def __init__(
        self, gateway: Gateway, caller: Caller, connection: Connection, model: str | None
    ) -> None:
        """`model` None: the app's default."""
        self._gateway = gateway
        self._caller = caller
        self._connection = connection
        self._model = model

    async def check(self) -> None:
        """Raises AnonymousAiDeniedError, DatabaseUnavailableError."""
        await self._gateway.check_caller(self._caller)

    async def ask(self, messages: list[dict[str, str]]) -> Reply:
        """Raises AiError and other ButterbaseErrors."""
        answer = await self._call(messages, {})
        assert isinstance(answer.body, bytes)
        return Reply(_telling(answer), _read(answer.body))

    async def ask_for_stream(self, messages: list[dict[str, str]]) -> Reply:
        """The generator is to be closed. Raises AiError and other ButterbaseErrors."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        answer = await self._call(messages, options)
        return Reply(_telling(answer), _pieces(answer.body))

    async def _call(self, messages: list[dict[str, str]], options: dict[str, Any]) -> Answer:
        body = {"messages": messages, **options}
        if self._model is not None:
            body["model"] = self._model
        client = _Client(msgspec.json.encode(body), self._connection)
        return await self._gateway.call(self._caller, Endpoint.CHAT, client)


class _Client:
    """The gateway's: it asks what we ask, and leaves when the request's client does."""

    def __init__(self, body: bytes, connection: Connection) -> None:
        self._body = body
        self._connection = connection

    @property
    def has_left(self) -> bool:
        return self._connection.has_left

    async def read(self) -> bytes:
        return self._body


def _telling(answer: Answer) -> list[Header]:
    return [header for header in answer.headers if header[0] != _CONTENT_TYPE]


async def _pieces(
    body: "bytes | AsyncGenerator[bytes, None]",
) -> "AsyncGenerator[Said, None]":
    decoder = EventStreamDecoder()
    parts = _one(body) if isinstance(body, bytes) else body
    try:
        async for part in parts:
            for event in decoder.feed(part):
                if event.data and event.data != b"[DONE]":
                    yield _read(event.data)
    finally:
        if not isinstance(body, bytes):
            await body.aclose()


async def _one(part: bytes) -> AsyncIterator[bytes]:
    yield part


def _read(body: bytes) -> Said:
    """Raises UpstreamInvalidError."""
    found = decode_json(_COMPLETION, body, UpstreamInvalidError)
    choice = found.choices[0] if found.choices else _Choice()
    text = choice.message.content or choice.delta.content or ""
    return Said(text, found.model, found.usage, found.error)
