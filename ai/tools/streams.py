"""One stream for the client, over all turns of a conversation in which the gateway runs tools.

What the model says is passed on as it comes, in each turn. Calls of the app's tools are kept back;
a comment in the stream tells that they were made. The stream ends once, with what all turns used.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from msgspec.structs import replace

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Header
from butterbase.ai.calls.passage import Answer
from butterbase.ai.errors import AiError, AiInternalError, UpstreamRefusedError
from butterbase.ai.http.problems import wire_error
from butterbase.ai.metering.costs import cost_comment
from butterbase.ai.providers.exchange import decode_whole
from butterbase.ai.tools.course import Course
from butterbase.ai.tools.talk import Talk, Turn
from butterbase.ai.wire.assembly import Assembly, events_of
from butterbase.ai.wire.events import (
    Failed,
    Finished,
    Started,
    StreamEvent,
    Told,
    ToolCallDelta,
    ToolCallStarted,
    WireError,
)
from butterbase.ai.wire.form import ChatAnswer, ChatRequest, Reasoning, Stamp
from butterbase.ai.wire.protocols import StreamEncoder
from butterbase.ai.wire.usage import add
from butterbase.ai.wire.wires import CLIENT_WIRES, TARGET_WIRES
from butterbase.sql.errors import ButterbaseError

_STAMP = Stamp("", 0)
_CONTENT_TYPE = b"content-type"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"

_log = logging.getLogger(__name__)


class TalkStream:
    def __init__(self, course: Course) -> None:
        self._course = course
        self._wire = CLIENT_WIRES[course.talk.endpoint.wire]
        self._form = _echoed(course.talk)
        self._telling = _Telling(course, self._wire.stream_encoder(self._form))

    def headers(self, first: Answer) -> list[Header]:
        """Those of the first turn: more is not known yet."""
        kept = [header for header in first.headers if header[0] not in _UNKNOWN_YET]
        return [(_CONTENT_TYPE, _EVENT_STREAM), *kept]

    async def start(self, first: Answer) -> AsyncGenerator[bytes, None]:
        """The stream's parts. Closing it before its end cancels what runs."""
        parts = self._parts(first)
        # What has not begun cannot be closed, nor could the call that it begins with.
        await anext(parts)
        return parts

    async def _parts(self, first: Answer) -> AsyncGenerator[bytes, None]:
        failure: WireError | None = None
        try:
            async with aclosing(self._turns(first)) as turns:
                async for part in turns:
                    yield part
        except UpstreamRefusedError as error:
            failure = error.error
        except ButterbaseError as error:
            failure = wire_error(error)
        except Exception:
            _log.exception("a stream with tools failed")
            failure = wire_error(AiInternalError())
        yield self._telling.end(failure)

    async def _turns(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """Raises what calls do, ToolStepsError, UpstreamRefusedError."""
        course = self._course
        while True:
            course.totals.begun(answer.call)
            heard = _Heard(course.talk, self._telling)
            async with _heard_out(answer):
                yield b""
                async for events, raw in _events(course.talk.endpoint, answer):
                    if part := heard.tell(events, raw):
                        yield part
            told = heard.answer()
            course.totals.told(told.usage)
            calls = course.talk.calls(told)
            if not calls.are_to_be_made:
                yield self._telling.finish(heard.finished)
                return
            course.check_step()
            results = await course.use(calls.ours, answer.call)
            failed_count = sum(result.is_error for result in results)
            yield b": x-butterbase-tool-calls: %d, failed: %d\n\n" % (len(results), failed_count)
            body = self._wire.encode_answer(told, self._form)
            answer = await course.ask(Turn(body, told, results, is_as_told=False))


_UNKNOWN_YET = frozenset({_CONTENT_TYPE, b"x-butterbase-cost-usd", b"x-butterbase-attempts"})


class _Telling:
    """What the client is told, over all turns."""

    def __init__(self, course: Course, encoder: StreamEncoder) -> None:
        self._course = course
        self._encoder = encoder
        self._has_started = False
        self._call_count = 0

    def tell(self, event: StreamEvent) -> bytes:
        match event:
            case Started() if self._has_started:
                return b""
            case Started():
                self._has_started = True
            case Told():
                event = Told(add(self._course.totals.usage, event.usage))
            case _:
                pass
        return self._encoder.encode(event)

    def place(self) -> int:
        """Of the next call of a tool of the client's own."""
        self._call_count += 1
        return self._call_count - 1

    def finish(self, finished: Finished | None) -> bytes:
        return self._encoder.encode(finished or Finished("stop"))

    def end(self, failure: WireError | None) -> bytes:
        comment = cost_comment(self._course.totals.cost_nanos)
        if failure is not None:
            return comment + self._encoder.encode(Failed(failure))
        return comment + self._encoder.close()


class _Heard:
    """One turn."""

    def __init__(self, talk: Talk, telling: _Telling) -> None:
        self._talk = talk
        self._telling = telling
        self._assembly = Assembly()
        self._places: dict[int, int] = {}
        """Of the client's calls, by their place in this turn that in all."""
        self._has_wire_thoughts = talk.endpoint is not Endpoint.CHAT
        self.finished: Finished | None = None

    def tell(self, events: list[StreamEvent], raw: bytes) -> bytes:
        """What the client is told of it now. Raises UpstreamRefusedError."""
        if any(name in raw for name in _THOUGHTS):
            self._has_wire_thoughts = True
        return b"".join(map(self._tell, events))

    def _tell(self, event: StreamEvent) -> bytes:
        if isinstance(event, Failed):
            raise UpstreamRefusedError(event.error)
        self._assembly.add(event)
        match event:
            case Finished():
                # Of the last turn alone it is the end.
                self.finished = event
                return b""
            case ToolCallStarted():
                if not self._talk.is_clients(event.name):
                    return b""
                self._places[event.index] = self._telling.place()
                return self._telling.tell(replace(event, index=self._places[event.index]))
            case ToolCallDelta():
                if event.index not in self._places:
                    return b""
                return self._telling.tell(replace(event, index=self._places[event.index]))
            case _:
                return self._telling.tell(event)

    def answer(self) -> ChatAnswer:
        """The whole turn; with thoughts where the provider may want to see them again."""
        answer = self._assembly.answer()
        if self._has_wire_thoughts:
            return answer
        choices = tuple(
            replace(c, parts=tuple(part for part in c.parts if not isinstance(part, Reasoning)))
            for c in answer.choices
        )
        return replace(answer, choices=choices)


_THOUGHTS = (b'"reasoning_content"', b'"reasoning_details"')
"""In which a provider that speaks OpenAI's form takes thoughts back; others refuse them."""


async def _events(
    endpoint: Endpoint, answer: Answer
) -> AsyncGenerator[tuple[list[StreamEvent], bytes], None]:
    """Of an answer in the client's wire, with the bytes that told them.

    Raises UpstreamError.
    """
    wire, body = TARGET_WIRES[endpoint.wire], answer.body
    if isinstance(body, bytes) and not _is_stream(answer):
        yield list(events_of(decode_whole(wire, body, _STAMP))), body
        return
    decoder = wire.stream_decoder(_STAMP)
    if isinstance(body, bytes):
        yield decoder.feed(body), body
    else:
        async for part in body:
            yield decoder.feed(part), part
    yield decoder.close(), b""


@asynccontextmanager
async def _heard_out(answer: Answer) -> AsyncIterator[None]:
    """Whatever becomes of it, the call ends."""
    try:
        yield
    finally:
        if not isinstance(answer.body, bytes):
            await answer.body.aclose()


def _is_stream(answer: Answer) -> bool:
    return any(n == _CONTENT_TYPE and v.startswith(b"text/event-stream") for n, v in answer.headers)


def _echoed(talk: Talk) -> ChatRequest:
    """What of the request is told in an answer: OpenAI's Responses repeat it."""
    nothing = ChatRequest(wants_usage=talk.wants_usage)
    if talk.endpoint is not Endpoint.RESPONSES:
        return nothing
    try:
        return CLIENT_WIRES[talk.endpoint.wire].decode_request(talk.body)
    except AiError:  # it has what OpenAI alone can read
        return nothing
