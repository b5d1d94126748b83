"""How a request goes to one target, and the answer comes back.

Where the target speaks the client's wire they pass as they are, but for the model, limits and
`stream_options`; else they are translated through the form.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.errors import UpstreamCutError, UpstreamInvalidError, UpstreamRefusedError
from butterbase.ai.metering.costs import CostOf, usd_of
from butterbase.ai.providers.reading import Reader, Whole
from butterbase.ai.routing.resolution import Target
from butterbase.ai.seams import Filter
from butterbase.ai.wire import embeddings
from butterbase.ai.wire.assembly import events_of
from butterbase.ai.wire.decoding import ALL_FIELDS, try_decode
from butterbase.ai.wire.events import Failed, Finished, Started, StreamEvent, Told, WireError
from butterbase.ai.wire.failures import decode_error, decode_stream_error, stream_error
from butterbase.ai.wire.form import NULL, ChatAnswer, Stamp, Usage
from butterbase.ai.wire.passing import render_passing
from butterbase.ai.wire.protocols import (
    Kind,
    StreamDecoder,
    StreamEncoder,
    TargetWire,
    UpstreamRequest,
    Watcher,
    WireName,
)
from butterbase.ai.wire.protocols import Target as WireTarget
from butterbase.ai.wire.watchers import read_answer, watcher
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES, target_wire


class Exchange(Protocol):
    def request(self) -> UpstreamRequest:
        """Raises WireUnsupportedError."""
        ...

    def read_whole(self, body: bytes) -> Whole:
        """Raises UpstreamInvalidError, UpstreamRefusedError."""
        ...

    def reader(self) -> Reader: ...

    def refusal(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> UpstreamRefusedError: ...


class Guarding(Struct, frozen=True):
    """What the guards want of an answer: the form, and so no answer passes as it is."""

    on_answer: Callable[[ChatAnswer], ChatAnswer]
    filter: Callable[[], Filter]


def exchange_with(
    asked: Asked,
    target: Target,
    stamp: Stamp,
    *,
    cost_of: CostOf,
    guarding: Guarding | None = None,
) -> Exchange:
    """`cost_of` is for streams, whose last usage tells it."""
    if asked.endpoint is Endpoint.EMBEDDINGS:
        if target.provider.kind in {Kind.GEMINI, Kind.ANTHROPIC}:
            return _Embeddings(asked, target)
        return _Passing(asked, target, WireName.CHAT, cost_of)
    client = asked.endpoint.wire
    wire = target_wire(client, target.provider.kind)
    if wire is client and not asked.is_rewritten and guarding is None:
        return _Passing(asked, target, wire, cost_of)
    return _Translating(asked, target, wire, stamp, cost_of, guarding)


# Passing


class _Passing:
    def __init__(self, asked: Asked, target: Target, wire: WireName, cost_of: CostOf) -> None:
        self._asked = asked
        self._target = target
        self._wire = wire
        self._cost_of = cost_of

    def request(self) -> UpstreamRequest:
        asked = self._asked
        changes = {}
        limit = asked.limit
        if limit is not None and asked.passing.token_count is None:
            changes[_limit_name(self._wire, self._target)] = limit
        body = render_passing(asked.passing, self._target.model, changes)
        headers = {}
        if asked.beta and self._wire is WireName.ANTHROPIC:
            headers["anthropic-beta"] = asked.beta
        return UpstreamRequest(asked.endpoint, body, headers)

    def read_whole(self, body: bytes) -> Whole:
        facts = read_answer(self._wire, body)
        if facts is None:
            raise UpstreamInvalidError(hint="check the base URL: it usually ends with /v1")
        if facts.usage is None and facts.finish is None:
            _raise_told_error(body)
            if bytes((try_decode(ALL_FIELDS, body) or {}).get(self._says, NULL))[:1] != b"[":
                raise UpstreamInvalidError(f"the AI provider's answer has no {self._says}")
        return Whole(body, facts.usage, model=facts.model, finish=facts.finish)

    @property
    def _says(self) -> str:
        """The field of an answer that has what it says."""
        if self._asked.endpoint is Endpoint.EMBEDDINGS:
            return "data"
        return {WireName.RESPONSES: "output", WireName.ANTHROPIC: "content"}.get(
            self._wire, "choices"
        )

    def reader(self) -> Reader:
        wants_usage = self._asked.passing.wants_usage
        found = watcher(self._wire, wants_usage=wants_usage, cost_of=self._cost_of)
        return _Watched(found, self._asked.endpoint.wire)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamRefusedError:
        error = decode_error(status, headers, body)
        is_theirs = error.kind != "authentication" and status >= 400
        is_kept = is_theirs and _is_error_of(self._asked.endpoint.wire, body)
        return UpstreamRefusedError(error, body=body if is_kept else None)


def _limit_name(wire: WireName, target: Target) -> str:
    if wire is WireName.RESPONSES:
        return "max_output_tokens"
    # OpenAI's newer models refuse the name that every other server knows.
    is_openai = wire is WireName.CHAT and target.provider.kind is Kind.OPENAI
    return "max_completion_tokens" if is_openai else "max_tokens"


def _raise_told_error(body: bytes) -> None:
    """Some answer 200 and tell an error. Raises UpstreamRefusedError."""
    fields = try_decode(ALL_FIELDS, body) or {}
    if fields.get("error", NULL) != NULL:
        raise UpstreamRefusedError(decode_stream_error(body))


def _is_error_of(wire: WireName, body: bytes) -> bool:
    """Whether a client of this wire finds its message where it looks."""
    fields = try_decode(ALL_FIELDS, body) or {}
    error = try_decode(ALL_FIELDS, fields.get("error", NULL)) or {}
    has_type = wire is not WireName.ANTHROPIC or "type" in error
    return has_type and bytes(error.get("message", NULL))[:1] == b'"'


class _Watched:
    """A stream that passes."""

    def __init__(self, found: Watcher, client: WireName) -> None:
        self._watcher = found
        self._client = client
        self.feed = found.feed
        self.close = found.close

    @property
    def usage(self) -> Usage | None:
        return self._watcher.usage

    @property
    def model(self) -> str | None:
        return self._watcher.model

    @property
    def finish(self) -> str | None:
        return self._watcher.finish

    @property
    def has_begun(self) -> bool:
        return self._watcher.has_begun

    @property
    def is_done(self) -> bool:
        return self._watcher.is_done

    @property
    def error(self) -> WireError | None:
        return self._watcher.error

    def ending(self) -> bytes:
        return self._watcher.ending

    def failure(self, error: WireError) -> bytes:
        return stream_error(self._client, error)


# Translating


class _Translating:
    def __init__(
        self,
        asked: Asked,
        target: Target,
        wire: WireName,
        stamp: Stamp,
        cost_of: CostOf,
        guarding: Guarding | None,
    ) -> None:
        self._cost_of = cost_of
        self._asked = asked
        self._target = target
        self._client = CLIENT_WIRES[asked.endpoint.wire]
        self._wire = TARGET_WIRES[wire]
        self._stamp = stamp
        self._guarding = guarding

    def request(self) -> UpstreamRequest:
        target = WireTarget(self._target.provider.kind, self._target.model, self._asked.limit)
        return self._wire.encode_request(self._asked.form, target)

    def read_whole(self, body: bytes) -> Whole:
        try:
            answer = decode_whole(self._wire, body, self._stamp)
        except UpstreamInvalidError:
            _raise_told_error(body)
            raise
        if self._guarding is not None:
            answer = self._guarding.on_answer(answer)
        return encode_whole(self._asked, answer)

    def reader(self) -> Reader:
        encoder = self._client.stream_encoder(self._asked.form)
        decoder = self._wire.stream_decoder(self._stamp)
        guarding = self._guarding
        filter_ = None if guarding is None else guarding.filter()
        return _Translated(decoder, encoder, filter_, self._cost_of)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamRefusedError:
        return UpstreamRefusedError(self._wire.decode_error(status, headers, body))


class _Translated:
    """A stream that is told anew, in the client's wire."""

    def __init__(
        self,
        decoder: StreamDecoder,
        encoder: StreamEncoder,
        filter_: Filter | None,
        cost_of: CostOf,
    ) -> None:
        self._cost_of = cost_of
        self._decoder = decoder
        self._encoder = encoder
        self._filter = filter_
        self.usage: Usage | None = None
        self.model: str | None = None
        self.finish: str | None = None
        self.has_begun = False
        self.error: WireError | None = None

    @property
    def is_done(self) -> bool:
        return self._decoder.is_over and self.error is None

    def feed(self, chunk: bytes) -> bytes:
        return self._encode(self._decoder.feed(chunk))

    def close(self) -> bytes:
        return self._encode(self._decoder.close())

    def ending(self) -> bytes:
        rest = b""
        if self._filter is not None:
            rest = b"".join(map(self._encoder.encode, self._filter.close()))
        return rest + self._encoder.close()

    def failure(self, error: WireError) -> bytes:
        return self._encoder.encode(Failed(error))

    def _encode(self, events: list[StreamEvent]) -> bytes:
        parts = []
        for event in events:
            if isinstance(event, Failed):
                self.error = event.error
                break
            self.has_begun = True
            if isinstance(event, (Told, Started, Finished)):
                self._note(event)
            for passed in (event,) if self._filter is None else self._filter.feed(event):
                parts.append(self._encoder.encode(self._priced(passed)))
        return b"".join(parts)

    def _priced(self, event: StreamEvent) -> StreamEvent:
        if not isinstance(event, Told):
            return event
        cost = usd_of(self._cost_of(event.usage))
        return Told(msgspec.structs.replace(event.usage, cost=cost))

    def _note(self, event: Told | Started | Finished) -> None:
        match event:
            case Told():
                self.usage = event.usage
            case Started():
                self.model = event.model
            case Finished():
                self.finish = event.finish


def decode_whole(wire: TargetWire, body: bytes, stamp: Stamp) -> ChatAnswer:
    """Also of an answer whose usage cannot be read; it has none then.

    Raises UpstreamInvalidError.
    """
    try:
        return wire.decode_answer(body, stamp)
    except UpstreamInvalidError:
        fields = try_decode(ALL_FIELDS, body) or {}
        if "usage" not in fields:
            raise
    del fields["usage"]
    return wire.decode_answer(msgspec.json.encode(fields), stamp)


def encode_whole(asked: Asked, answer: ChatAnswer) -> Whole:
    """An answer in the client's wire, as a stream where that was asked for."""
    client = CLIENT_WIRES[asked.endpoint.wire]
    if not asked.is_streamed:
        body = client.encode_answer(answer, asked.form)
        return Whole(body, answer.usage, model=answer.model, finish=answer.first.finish)
    encoder = client.stream_encoder(asked.form)
    body = b"".join(map(encoder.encode, events_of(answer))) + encoder.close()
    return Whole(body, answer.usage, is_stream=True, model=answer.model, finish=answer.first.finish)


# Embeddings of providers that have a form of their own


class _Embeddings:
    def __init__(self, asked: Asked, target: Target) -> None:
        self._asked = asked
        self._target = WireTarget(target.provider.kind, target.model)

    def request(self) -> UpstreamRequest:
        return embeddings.encode_request(self._asked.embedding, self._target)

    def read_whole(self, body: bytes) -> Whole:
        request = self._asked.embedding
        answer = embeddings.decode_answer(request, self._target, body)
        body = embeddings.encode_answer(answer, request)
        return Whole(body, answer.usage, model=answer.model)

    def reader(self) -> Reader:
        raise UpstreamCutError  # embeddings are not streamed

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamRefusedError:
        return UpstreamRefusedError(decode_error(status, headers, body))
