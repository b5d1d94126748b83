"""The events of a stream → the whole answer, and back: a stream can be kept, and played again."""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.wire.decoding import try_decode
from butterbase.ai.wire.events import (
    CitationAdded,
    Failed,
    Finished,
    ImageAdded,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    Told,
    ToolCallDelta,
    ToolCallStarted,
    WireError,
)
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    Choice,
    Image,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)


class _ChoiceState:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.calls: dict[int, int] = {}
        """By a call's index, its place among the parts."""
        self.finish: Finished | None = None
        self.has_ended_thought = False
        self.logprobs: list[Raw] = []


class Assembly:
    """Add the events; `answer` is what they told so far."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._choices: dict[int, _ChoiceState] = {}
        self.usage: Usage | None = None
        self.error: WireError | None = None

    def add(self, event: StreamEvent) -> None:
        match event:
            case Started():
                self._started = event
            case Told():
                self.usage = event.usage
            case Failed():
                self.error = event.error
            case _:
                _add(self._choices.setdefault(event.choice, _ChoiceState()), event)

    def answer(self) -> ChatAnswer:
        started = self._started or Started("", "", 0)
        return ChatAnswer(
            id=started.id,
            model=started.model,
            created_s=started.created_s,
            choices=tuple(
                Choice(
                    index,
                    tuple(state.parts),
                    None if state.finish is None else state.finish.finish,
                    None if state.finish is None else state.finish.stop_sequence,
                    _joined(state.logprobs),
                )
                for index, state in sorted(self._choices.items())
            ),
            usage=self.usage,
            service_tier=started.service_tier,
            fingerprint=started.fingerprint,
        )


_ChoiceEvent = (
    TextDelta
    | RefusalDelta
    | ImageAdded
    | CitationAdded
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | Finished
)


def _add(state: _ChoiceState, event: _ChoiceEvent) -> None:
    last = state.parts[-1] if state.parts else None
    match event:
        case TextDelta():
            _add_text(state, last, event)
        case RefusalDelta():
            before = last.text if isinstance(last, Refusal) else None
            _put(state, Refusal((before or "") + event.text), is_more=before is not None)
        case ImageAdded():
            state.parts.append(event.image)
        case CitationAdded():
            _cite(state, event)
        case ReasoningDelta():
            _add_thought(state, last, event)
        case ToolCallStarted():
            state.calls[event.index] = len(state.parts)
            call = ToolCall(
                event.id, event.name, "", is_custom=event.is_custom, signature=event.signature
            )
            state.parts.append(call)
        case ToolCallDelta():
            place = state.calls[event.index]
            call_ = state.parts[place]
            assert isinstance(call_, ToolCall)
            state.parts[place] = _replaced(call_, call_.arguments + event.arguments)
        case Finished():
            state.finish = event


def _replaced(call: ToolCall, arguments: str) -> ToolCall:
    return ToolCall(
        call.id, call.name, arguments, is_custom=call.is_custom, signature=call.signature
    )


def _add_text(state: _ChoiceState, last: Part | None, event: TextDelta) -> None:
    if event.logprobs != NULL:
        state.logprobs.append(event.logprobs)
    if isinstance(last, Text):
        text = Text(last.text + event.text, None, event.signature or last.signature, last.citations)
        _put(state, text, is_more=True)
    elif event.text or event.signature is not None:
        _put(state, Text(event.text, None, event.signature), is_more=False)


def _cite(state: _ChoiceState, event: CitationAdded) -> None:
    for place, part in reversed(list(enumerate(state.parts))):
        if isinstance(part, Text):
            cited = (*part.citations, event.citation)
            state.parts[place] = Text(part.text, None, part.signature, cited)
            return


def _add_thought(state: _ChoiceState, last: Part | None, event: ReasoningDelta) -> None:
    is_open = isinstance(last, Reasoning) and not last.is_redacted and not state.has_ended_thought
    if event.is_redacted or not is_open:
        thought = Reasoning(event.text, event.signature, event.is_redacted)
        _put(state, thought, is_more=False)
    else:
        assert isinstance(last, Reasoning)
        _put(state, Reasoning(last.text + event.text, event.signature), is_more=True)
    state.has_ended_thought = event.signature is not None


def _put(state: _ChoiceState, part: Part, *, is_more: bool) -> None:
    if is_more:
        state.parts[-1] = part
    else:
        state.parts.append(part)


class _Logprobs(Struct, frozen=True, omit_defaults=True):
    content: list[Raw] | None = None
    refusal: list[Raw] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs)


def _joined(pieces: list[Raw]) -> Raw:
    if len(pieces) < 2:
        return pieces[0] if pieces else NULL
    read = [piece for raw in pieces if (piece := try_decode(_LOGPROBS, raw)) is not None]
    content = [token for piece in read for token in piece.content or ()]
    refusal = [token for piece in read for token in piece.refusal or ()]
    return Raw(msgspec.json.encode(_Logprobs(content or None, refusal or None)))


def events_of(answer: ChatAnswer) -> Iterator[StreamEvent]:
    """The events of a stream that tells this answer, each part whole."""
    yield Started(
        answer.id, answer.model, answer.created_s, answer.service_tier, answer.fingerprint
    )
    for choice in answer.choices:
        yield from _events_of(choice)
        yield Finished(choice.finish or "stop", choice.index, choice.stop_sequence)
    if answer.usage is not None:
        yield Told(answer.usage)


def _events_of(choice: Choice) -> Iterable[StreamEvent]:
    index, call_count, logprobs = choice.index, 0, choice.logprobs
    for part in choice.parts:
        match part:
            case Text():
                yield TextDelta(part.text, index, part.signature, logprobs)
                logprobs = NULL
                for citation in part.citations:
                    yield CitationAdded(citation, index)
            case Image():
                yield ImageAdded(part, index)
            case Refusal():
                yield RefusalDelta(part.text, index)
            case Reasoning():
                yield ReasoningDelta(part.text, index, part.signature, part.is_redacted)
            case ToolCall():
                yield ToolCallStarted(
                    call_count, part.id, part.name, index, part.is_custom, part.signature
                )
                yield ToolCallDelta(call_count, part.arguments, index)
                call_count += 1
            case _:
                pass
