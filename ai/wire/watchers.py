"""Answers that pass in the wire they came in: usage, errors and ends are read on the way.

A stream is passed on in the bytes that it came in. Kept back are its end, so that the caller can
tell of the call first, an error, which becomes `error`, and the usage that only we asked for.
Most events of a stream are pieces of text, and are known by their first bytes.
"""

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamCutError
from butterbase.ai.metering.costs import CostOf, with_cost
from butterbase.ai.wire.decoding import read, try_decode
from butterbase.ai.wire.events import (
    WireError,
)
from butterbase.ai.wire.failures import decode_stream_error
from butterbase.ai.wire.form import (
    NULL,
    Usage,
)
from butterbase.ai.wire.openai_chat.encoder import DONE
from butterbase.ai.wire.protocols import AnswerFacts, Watcher, WireName
from butterbase.ai.wire.sse import Event, EventStreamDecoder
from butterbase.ai.wire.usage import AnthropicUsage, ChatUsage, ResponsesUsage


class _Choice(Struct, frozen=True):
    finish_reason: str | None = None


class _Chat(Struct, frozen=True):
    """Of an answer or a chunk, what is read; each part is judged by itself."""

    model: Raw = NULL
    usage: Raw = NULL
    choices: Raw = NULL
    error: Raw = NULL


class _Details(Struct, frozen=True):
    reason: str | None = None


class _Response(Struct, frozen=True):
    model: str | None = None
    status: str | None = None
    usage: Raw = NULL
    error: Raw = NULL
    incomplete_details: _Details | None = None


class _Message(Struct, frozen=True):
    model: str | None = None
    stop_reason: str | None = None
    usage: Raw = NULL
    error: Raw = NULL


_CHAT = msgspec.json.Decoder(_Chat)
_CHOICES = msgspec.json.Decoder(list[_Choice] | None)
_MODEL = msgspec.json.Decoder(str | None)
_CHAT_USAGE = msgspec.json.Decoder(ChatUsage | None)
_RESPONSE = msgspec.json.Decoder(_Response)
_RESPONSES_USAGE = msgspec.json.Decoder(ResponsesUsage | None)
_MESSAGE = msgspec.json.Decoder(_Message)
_ANTHROPIC_USAGE = msgspec.json.Decoder(AnthropicUsage | None)


def read_answer(wire: WireName, body: bytes) -> AnswerFacts | None:
    """Of a whole answer; None where it is no JSON object."""
    if wire is WireName.CHAT:
        chat = try_decode(_CHAT, body)
        return None if chat is None else _chat_facts(chat, body)
    if wire is WireName.RESPONSES:
        response = try_decode(_RESPONSE, body)
        return None if response is None else _response_facts(response, body)
    message = try_decode(_MESSAGE, body)
    if message is None:
        return None
    usage = try_decode(_ANTHROPIC_USAGE, message.usage)
    error = None if message.error == NULL else decode_stream_error(body)
    return AnswerFacts(read(usage), message.stop_reason, message.model, error)


def _chat_facts(chat: _Chat, body: bytes) -> AnswerFacts:
    usage = try_decode(_CHAT_USAGE, chat.usage)
    choices = try_decode(_CHOICES, chat.choices) or []
    finish = next((c.finish_reason for c in choices if c.finish_reason), None)
    error = None if chat.error == NULL else decode_stream_error(body)
    return AnswerFacts(read(usage), finish, try_decode(_MODEL, chat.model), error)


def _response_facts(response: _Response, body: bytes | Raw) -> AnswerFacts:
    usage = try_decode(_RESPONSES_USAGE, response.usage)
    details = response.incomplete_details
    finish = (details.reason if details else None) or response.status
    error = None if response.error == NULL else decode_stream_error(body)
    return AnswerFacts(read(usage), finish, response.model, error)


class _Watcher:
    """What the three have in common."""

    def __init__(self, cost_of: CostOf | None = None) -> None:
        self._cost_of = cost_of
        self._decoder = EventStreamDecoder()
        self._changed: bytes | None = None
        """In place of the event that is being read."""
        self._ending = b""
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.model: str | None = None
        self.has_begun = False
        self.is_done = False
        self.error: WireError | None = None

    @property
    def ending(self) -> bytes:
        return self._ending

    def feed(self, chunk: bytes) -> bytes:
        events = self._decoder.feed(chunk)
        if len(events) == 1 and events[0].raw is chunk:
            return self._passed(events[0])
        return b"".join(map(self._passed, events))

    def close(self) -> bytes:
        rest = self._decoder.close()
        # Some servers leave out the last blank line; half an event is no event.
        is_whole = rest and rest.data and (rest.data.strip() == b"[DONE]" or _is_json(rest.data))
        part = self._passed(rest).rstrip() if rest and is_whole else b""
        # Some leave out the very end; a reason to finish and a clean end say as much.
        if not self.is_done and self.finish is None:
            raise UpstreamCutError
        return part + b"\n\n" if part else b""

    def _passed(self, event: Event) -> bytes:
        if not self._passes(event):
            return b""
        changed, self._changed = self._changed, None
        return event.raw if changed is None else changed

    def _priced(self, event: Event, data: bytes, path: tuple[str, ...]) -> bytes:
        """The event with the cost of the usage that it tells, and that was just read."""
        if self._cost_of is None or self.usage is None:
            return event.raw
        return _replaced(event, data, with_cost(data, path, self._cost_of(self.usage)))

    def _passes(self, event: Event) -> bool:
        if self.is_done or self.error is not None:
            return False
        return event.data is None or self._reads(event, event.data)

    def _reads(self, event: Event, data: bytes) -> bool:
        raise NotImplementedError

    def _end(self, event: Event) -> bool:
        self.is_done = True
        self._ending = event.raw.rstrip() + b"\n\n"
        return False

    def _fail(self, data: bytes | Raw) -> bool:
        self.error = decode_stream_error(data)
        return False


class ChatWatcher(_Watcher):
    def __init__(self, *, wants_usage: bool, cost_of: CostOf | None = None) -> None:
        super().__init__(cost_of)
        self._wants_usage = wants_usage

    @property
    def ending(self) -> bytes:
        return DONE

    def _reads(self, event: Event, data: bytes) -> bool:
        if data[:1] != b"{" and data.strip() == b"[DONE]":
            self.is_done = True
            return False
        self.has_begun = True
        chunk = try_decode(_CHAT, data)
        if chunk is None:
            return True
        if chunk.error != NULL:
            return self._fail(data)
        self.model = self.model or try_decode(_MODEL, chunk.model)
        choices = try_decode(_CHOICES, chunk.choices)
        for choice in choices or ():
            self.finish = choice.finish_reason or self.finish
        told = None if chunk.usage == NULL else try_decode(_CHAT_USAGE, chunk.usage)
        if told is None:
            return True
        self.usage = told.read()
        if not choices and not self._wants_usage:
            return False
        self._changed = self._priced(event, data, ("usage",))
        return True


class _ResponsesEvent(Struct, frozen=True):
    type: str = ""
    response: Raw = NULL


_RESPONSES_EVENT = msgspec.json.Decoder(_ResponsesEvent)
_RESPONSES_ENDS = frozenset({"response.completed", "response.incomplete"})
_RESPONSES_FAILURES = frozenset({"response.failed", "error"})


class ResponsesWatcher(_Watcher):
    def _reads(self, event: Event, data: bytes) -> bool:
        self.has_begun = True
        told = try_decode(_RESPONSES_EVENT, data)
        if told is None:
            return True
        if told.type in _RESPONSES_FAILURES:
            response = None if told.response == NULL else try_decode(_RESPONSE, told.response)
            if response is not None:
                self._note(response, told.response)
            return self._fail(data if response is None else told.response)
        if told.type == "response.created" or told.type in _RESPONSES_ENDS:
            response = try_decode(_RESPONSE, told.response)
            if response is not None:
                self._note(response, told.response)
        if told.type not in _RESPONSES_ENDS:
            return True
        priced = self._priced(event, data, ("response", "usage"))
        return self._end(Event(priced, data))

    def _note(self, response: _Response, raw: Raw) -> None:
        facts = _response_facts(response, raw)
        self.model = facts.model or self.model
        self.usage = facts.usage or self.usage
        if response.status in {"completed", "incomplete"}:
            self.finish = facts.finish


class _AnthropicEvent(Struct, frozen=True):
    type: str = ""
    message: _Message | None = None
    delta: _Message | None = None
    usage: Raw = NULL


_ANTHROPIC_EVENT = msgspec.json.Decoder(_AnthropicEvent)
_DELTA = b"event: content_block_delta"


_MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class AnthropicWatcher(_Watcher):
    def __init__(self, cost_of: CostOf | None = None) -> None:
        super().__init__(cost_of)
        self._ending = _MESSAGE_STOP
        self._told = AnthropicUsage()

    def _reads(self, event: Event, data: bytes) -> bool:
        if event.raw.startswith(_DELTA):
            self.has_begun = True
            return True
        told = try_decode(_ANTHROPIC_EVENT, data)
        if told is None or told.type == "ping":
            return True
        self.has_begun = True
        if told.type == "error":
            return self._fail(data)
        if told.message is not None:
            self.model = told.message.model
            self._tell(told.message.usage)
        if told.type == "message_delta":
            if told.delta is not None and told.delta.stop_reason:
                self.finish = told.delta.stop_reason
            self._tell(told.usage)
            self._changed = self._priced(event, data, ("usage",))
        return self._end(event) if told.type == "message_stop" else True

    def _tell(self, raw: Raw) -> None:
        told = try_decode(_ANTHROPIC_USAGE, raw)
        if told is not None:
            self._told = self._told.merged(told)
            self.usage = self._told.read() or self.usage


def watcher(wire: WireName, *, wants_usage: bool = True, cost_of: CostOf | None = None) -> Watcher:
    """With `cost_of` the last usage that is passed on tells the cost as well."""
    if wire is WireName.RESPONSES:
        return ResponsesWatcher(cost_of)
    if wire is WireName.ANTHROPIC:
        return AnthropicWatcher(cost_of)
    return ChatWatcher(wants_usage=wants_usage, cost_of=cost_of)


def _replaced(event: Event, data: bytes, changed: bytes) -> bytes:
    """The event with other data. What else it says, such as its name, stays."""
    if changed is data:
        return event.raw
    if event.raw.count(data) == 1 and b"\n" not in data:
        return event.raw.replace(data, changed)
    lines = event.raw.splitlines()
    kept = [line for line in lines if line and not line.startswith(b"data")]
    return b"\n".join([*kept, b"data: " + changed]) + b"\n\n"


def _is_json(data: bytes) -> bool:
    return try_decode(_CHAT, data) is not None
